// EWA projection of sixteen Gaussians into one camera; the forward and the backward pass share it.
//
// With R, s from quaternion and scales and M = R diag(s), the covariance is M M^T; of a covariance that is given, M is
// the Cholesky factor. A camera maps it with the 2x3 matrix T = J W (Jacobian of the perspective times world-to-camera
// rotation) to N N^T, N = T M. Keeping N instead of the covariance gives determinants as sums of squares, without
// cancellation.
#pragma once

#include "render_plan.h"
#include "simd/lanes.h"

namespace KG4D_ISA {

struct Camera {
    float R[9], t[3];
    float fx, fy, cx, cy;
    float u_min, u_max, v_min, v_max;  // x/z and y/z are clamped to these in J: 15 % beyond the image on each side
};

KG4D_INLINE Camera make_camera(const float* viewmat, const float* K, float width, float height) {
    Camera c;
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) c.R[3 * i + j] = viewmat[4 * i + j];
        c.t[i] = viewmat[4 * i + 3];
    }
    c.fx = K[0], c.fy = K[4], c.cx = K[2], c.cy = K[5];
    const float margin_x = 0.15f * width / c.fx, margin_y = 0.15f * height / c.fy;
    c.u_min = -c.cx / c.fx - margin_x, c.u_max = (width - c.cx) / c.fx + margin_x;
    c.v_min = -c.cy / c.fy - margin_y, c.v_max = (height - c.cy) / c.fy + margin_y;
    return c;
}

struct Shape {
    vf w, x, y, z, inverse_norm;  // unit quaternion; this and the next line not of a covariance
    vf R[9], s[3];
    vf M[9];
};

KG4D_INLINE vf dot(const vf* a, const vf* b) { return fma(a[0], b[0], fma(a[1], b[1], a[2] * b[2])); }

// The lower Cholesky factor. A pivot that rounding may have made of nothing is nothing, and its column zero.
KG4D_INLINE void factor_covariances(const float* covariances, int count, vf* M) {
    const vf zero = splat(0.0f), noise = splat(1e-6f), tiny = splat(1e-30f);
    vf c[6];  // xx, xy, xz, yy, yz, zz
    for (int k = 0; k < 6; ++k) c[k] = gather(covariances + k, 6, count);
    const vm first = c[0] > tiny;
    const vf xx = keep(first, c[0]), inverse_x = keep(first, splat(1.0f) / sqrt(max(c[0], tiny)));
    M[0] = sqrt(xx), M[1] = zero, M[2] = zero;
    M[3] = c[1] * inverse_x, M[6] = c[2] * inverse_x;
    const vf left = fnma(M[3], M[3], c[3]);
    const vm second = left > max(noise * c[3], tiny);
    M[4] = keep(second, sqrt(max(left, tiny))), M[5] = zero;
    M[7] = keep(second, fnma(M[3], M[6], c[4]) / sqrt(max(left, tiny)));
    M[8] = sqrt(max(fnma(M[7], M[7], fnma(M[6], M[6], c[5])), zero));
}

// From quaternions and scales, or from covariances where these are not null.
KG4D_INLINE Shape make_shape(const float* quats, const float* scales, const float* covariances, int count) {
    Shape o;
    if (covariances != nullptr) {
        factor_covariances(covariances, count, o.M);
        return o;
    }
    vf w = gather(quats, 4, count), x = gather(quats + 1, 4, count);
    vf y = gather(quats + 2, 4, count), z = gather(quats + 3, 4, count);
    const vf norm2 = max(w * w + x * x + y * y + z * z, splat(1e-24f));
    o.inverse_norm = splat(1.0f) / sqrt(norm2);
    o.w = w = w * o.inverse_norm, o.x = x = x * o.inverse_norm;
    o.y = y = y * o.inverse_norm, o.z = z = z * o.inverse_norm;
    const vf one = splat(1.0f), two = splat(2.0f);
    o.R[0] = one - two * (y * y + z * z), o.R[1] = two * (x * y - w * z), o.R[2] = two * (x * z + w * y);
    o.R[3] = two * (x * y + w * z), o.R[4] = one - two * (x * x + z * z), o.R[5] = two * (y * z - w * x);
    o.R[6] = two * (x * z - w * y), o.R[7] = two * (y * z + w * x), o.R[8] = one - two * (x * x + y * y);
    for (int j = 0; j < 3; ++j) {
        o.s[j] = gather(scales + j, 3, count);
        for (int i = 0; i < 3; ++i) o.M[3 * i + j] = o.R[3 * i + j] * o.s[j];
    }
    return o;
}

KG4D_INLINE Shape scene_shape(const kg4d_scene& scene, int64_t first, int count) {
    if (scene.covariances != nullptr) return make_shape(nullptr, nullptr, scene.covariances + 6 * first, count);
    return make_shape(scene.quats + 4 * first, scene.scales + 3 * first, nullptr, count);
}

struct Projection {
    vf X, Y, Z, inverse_z;          // centre in camera space
    vf u, v, u_clamped, v_clamped;  // X/Z, Y/Z
    vf ja, jb, jc, jd;              // J = [ja 0 jb; 0 jc jd]
    vf T0[3], T1[3], N0[3], N1[3];  // rows of T = J W and N = T M
    vf xx, xy, yy, det;             // 2D covariance with eps2d added, its determinant
    vf det_sharp;                   // determinant before eps2d was added
};

// Centres with Z <= 0 give meaningless but finite values: Z is replaced by one.
KG4D_INLINE Projection project(const Camera& c, const Shape& shape, const vf* mean, vm in_front, float eps2d, vf Z) {
    Projection p;
    const float* R = c.R;
    p.X = fma(splat(R[0]), mean[0], fma(splat(R[1]), mean[1], fma(splat(R[2]), mean[2], splat(c.t[0]))));
    p.Y = fma(splat(R[3]), mean[0], fma(splat(R[4]), mean[1], fma(splat(R[5]), mean[2], splat(c.t[1]))));
    p.Z = select(in_front, Z, splat(1.0f));
    p.inverse_z = splat(1.0f) / p.Z;
    p.u = p.X * p.inverse_z, p.v = p.Y * p.inverse_z;
    p.u_clamped = clamp(p.u, splat(c.u_min), splat(c.u_max));
    p.v_clamped = clamp(p.v, splat(c.v_min), splat(c.v_max));
    p.ja = splat(c.fx) * p.inverse_z, p.jb = splat(0.0f) - p.ja * p.u_clamped;
    p.jc = splat(c.fy) * p.inverse_z, p.jd = splat(0.0f) - p.jc * p.v_clamped;
    for (int j = 0; j < 3; ++j) {
        p.T0[j] = fma(p.ja, splat(R[j]), p.jb * splat(R[6 + j]));
        p.T1[j] = fma(p.jc, splat(R[3 + j]), p.jd * splat(R[6 + j]));
    }
    for (int j = 0; j < 3; ++j) {
        const vf column[3] = {shape.M[j], shape.M[3 + j], shape.M[6 + j]};
        p.N0[j] = dot(p.T0, column), p.N1[j] = dot(p.T1, column);
    }
    const vf cross[3] = {fnma(p.N0[2], p.N1[1], p.N0[1] * p.N1[2]), fnma(p.N0[0], p.N1[2], p.N0[2] * p.N1[0]),
                         fnma(p.N0[1], p.N1[0], p.N0[0] * p.N1[1])};
    const vf xx = dot(p.N0, p.N0), yy = dot(p.N1, p.N1), eps = splat(eps2d);
    p.xy = dot(p.N0, p.N1);
    p.det_sharp = dot(cross, cross);
    p.det = fma(eps, xx + yy + eps, p.det_sharp);
    p.xx = xx + eps, p.yy = yy + eps;
    return p;
}

KG4D_INLINE vf camera_depth(const Camera& c, const vf* mean) {
    return fma(splat(c.R[6]), mean[0], fma(splat(c.R[7]), mean[1], fma(splat(c.R[8]), mean[2], splat(c.t[2]))));
}

}  // namespace KG4D_ISA
