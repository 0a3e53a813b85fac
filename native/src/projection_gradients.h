// From gradients in one image plane to gradients of Gaussians and camera. See projection_math.h for the names.
#pragma once

#include "projection_math.h"

namespace KG4D_ISA {

struct Accumulated {                     // over the cameras
    vf mean[3], covariance[6], opacity;  // covariance: xx, xy, xz, yy, yz, zz of the full symmetric matrix
};

// From the gradients of the 2D covariance (s: xx, xy, yy of the full symmetric matrix), of the image point and of the
// depth to those of the centre, of the covariance (T^T s T) and of the camera.
KG4D_INLINE void to_world(const Camera& c, const Shape& shape, const vf* mean, const Projection& p, const vf* s,
                          const vf* v_mean2d, vf v_depth, vf live, Accumulated& sum, vf* pose) {
    vf vN0[3], vN1[3], vT0[3], vT1[3];
    const vf two = splat(2.0f);
    for (int j = 0; j < 3; ++j) {
        vN0[j] = two * fma(s[0], p.N0[j], s[1] * p.N1[j]);
        vN1[j] = two * fma(s[1], p.N0[j], s[2] * p.N1[j]);
    }
    vf sT0[3], sT1[3];
    for (int j = 0; j < 3; ++j) {
        sT0[j] = fma(s[0], p.T0[j], s[1] * p.T1[j]);
        sT1[j] = fma(s[1], p.T0[j], s[2] * p.T1[j]);
    }
    for (int i = 0, k = 0; i < 3; ++i) {
        for (int j = i; j < 3; ++j, ++k) {
            sum.covariance[k] = fma(p.T0[i], sT0[j], fma(p.T1[i], sT1[j], sum.covariance[k]));
        }
        vT0[i] = dot(vN0, shape.M + 3 * i), vT1[i] = dot(vN1, shape.M + 3 * i);
    }
    vf row[3][3];
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) row[i][j] = splat(c.R[3 * i + j]);
    }
    const vf vja = dot(vT0, row[0]), vjb = dot(vT0, row[2]), vjc = dot(vT1, row[1]), vjd = dot(vT1, row[2]);
    const vf fx = splat(c.fx), fy = splat(c.fy), zero = splat(0.0f);
    const vm u_free = (p.u >= splat(c.u_min)) & (p.u <= splat(c.u_max));
    const vm v_free = (p.v >= splat(c.v_min)) & (p.v <= splat(c.v_max));
    const vf vu = fma(fx, v_mean2d[0], keep(u_free, zero - vjb * p.ja));
    const vf vv = fma(fy, v_mean2d[1], keep(v_free, zero - vjd * p.jc));
    const vf v_inverse_z = fma(vu, p.X, vv * p.Y) + fx * (vja - vjb * p.u_clamped) + fy * (vjc - vjd * p.v_clamped);
    const vf v_local[3] = {live * vu * p.inverse_z, live * vv * p.inverse_z,
                           live * (v_depth - v_inverse_z * p.inverse_z * p.inverse_z)};
    for (int j = 0; j < 3; ++j) {
        for (int i = 0; i < 3; ++i) sum.mean[j] = fma(row[i][j], v_local[i], sum.mean[j]);
    }
    if (pose == nullptr) return;
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) pose[4 * i + j] = fma(v_local[i], mean[j], pose[4 * i + j]);
        pose[4 * i + 3] = pose[4 * i + 3] + v_local[i];
    }
    for (int j = 0; j < 3; ++j) {  // T0 = ja R0 + jb R2, T1 = jc R1 + jd R2
        pose[j] = fma(p.ja, vT0[j], pose[j]);
        pose[4 + j] = fma(p.jc, vT1[j], pose[4 + j]);
        pose[8 + j] = fma(p.jb, vT0[j], fma(p.jd, vT1[j], pose[8 + j]));
    }
}

// A covariance that is given has its two equal entries as one number.
KG4D_INLINE void write_covariance_gradients(const vf* v, float* covariances, int count) {
    for (int k = 0; k < 6; ++k) {
        const bool diagonal = k == 0 || k == 3 || k == 5;
        scatter(diagonal ? v[k] : v[k] + v[k], covariances + k, 6, count);
    }
}

// The covariance is M M^T with M = R diag(s), R from the unit quaternion, which is q / |q|.
KG4D_INLINE void write_shape_gradients(const Shape& o, const vf* v_covariance, float* quats, float* scales, int count) {
    const vf* G = v_covariance;
    const vf rows[3][3] = {{G[0], G[1], G[2]}, {G[1], G[3], G[4]}, {G[2], G[4], G[5]}};
    vf vM[9], vR[9];
    for (int j = 0; j < 3; ++j) {
        const vf column[3] = {o.M[j], o.M[3 + j], o.M[6 + j]};
        for (int i = 0; i < 3; ++i) vM[3 * i + j] = splat(2.0f) * dot(rows[i], column);
    }
    for (int j = 0; j < 3; ++j) {
        vf v_scale = splat(0.0f);
        for (int i = 0; i < 3; ++i) {
            v_scale = fma(vM[3 * i + j], o.R[3 * i + j], v_scale);
            vR[3 * i + j] = vM[3 * i + j] * o.s[j];
        }
        scatter(v_scale, scales + j, 3, count);
    }
    const vf two = splat(2.0f), w = o.w, x = o.x, y = o.y, z = o.z;
    vf v[4];
    v[0] = two * (x * (vR[7] - vR[5]) + y * (vR[2] - vR[6]) + z * (vR[3] - vR[1]));
    v[1] = two * (y * (vR[1] + vR[3]) + z * (vR[2] + vR[6]) + w * (vR[7] - vR[5]) - two * x * (vR[4] + vR[8]));
    v[2] = two * (x * (vR[1] + vR[3]) + z * (vR[5] + vR[7]) + w * (vR[2] - vR[6]) - two * y * (vR[0] + vR[8]));
    v[3] = two * (x * (vR[2] + vR[6]) + y * (vR[5] + vR[7]) + w * (vR[3] - vR[1]) - two * z * (vR[0] + vR[4]));
    const vf along = v[0] * w + v[1] * x + v[2] * y + v[3] * z, unit[4] = {w, x, y, z};
    for (int i = 0; i < 4; ++i) {
        scatter((v[i] - along * unit[i]) * o.inverse_norm, quats + i, 4, count);
    }
}

}  // namespace KG4D_ISA
