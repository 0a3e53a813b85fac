// Colours that depend on the direction of sight, of sixteen Gaussians in one camera; both passes share it.
//
// A colour is c + sum_k Y_k(d) h_k, not below 0. d points from the camera's centre to the mean, in world axes; Y_k are
// the real spherical harmonics of degree 1 to 3 as polynomials of d (Sloan 2013), with the signs of 3D Gaussian
// splatting.
#pragma once

#include "projection_math.h"

namespace KG4D_ISA {

constexpr int kMostHarmonics = 15;

KG4D_INLINE int harmonics_count(int degree) { return (degree + 1) * (degree + 1) - 1; }

// Factors of the polynomials: sqrt(3/4pi); sqrt(15/4pi), sqrt(5/16pi), sqrt(15/16pi); sqrt(35/32pi), sqrt(105/4pi),
// sqrt(21/32pi), sqrt(7/16pi), sqrt(105/16pi).
constexpr float kY1 = 0.48860251190291992f;
constexpr float kY2xy = 1.0925484305920790f, kY2zz = 0.31539156525252001f, kY2xx = 0.54627421529603953f;
constexpr float kY3xxx = 0.59004358992664351f, kY3xyz = 2.8906114426405540f, kY3zzx = 0.45704579946446573f;
constexpr float kY3zzz = 0.37317633259011539f, kY3xxz = 1.4453057213202770f;

struct ColorModel {
    int degree;
    vf base[3];
    vf harmonics[3 * kMostHarmonics];  // [k, colour]
};

KG4D_INLINE void load_color_model(const kg4d_scene& scene, int64_t first, int count, ColorModel& m) {
    const int total = 3 * harmonics_count(scene.sh_degree);
    m.degree = scene.sh_degree;
    for (int j = 0; j < 3; ++j) m.base[j] = gather(scene.features + 3 * first + j, 3, count);
    load_each(scene.harmonics + total * first, total, count, m.harmonics);
}

struct Sight {
    vf d[3], inverse_distance;
};

KG4D_INLINE Sight sight(const Camera& c, const vf* mean) {
    Sight s;
    for (int j = 0; j < 3; ++j) {  // the centre is -R^T t
        s.d[j] = mean[j] + splat(c.R[j] * c.t[0] + c.R[3 + j] * c.t[1] + c.R[6 + j] * c.t[2]);
    }
    s.inverse_distance = splat(1.0f) / sqrt(max(dot(s.d, s.d), splat(1e-24f)));
    for (vf& d : s.d) d = d * s.inverse_distance;
    return s;
}

KG4D_INLINE void harmonics_at(const Sight& s, int degree, vf* Y) {
    const vf x = s.d[0], y = s.d[1], z = s.d[2], two = splat(2.0f), three = splat(3.0f), four = splat(4.0f);
    Y[0] = splat(-kY1) * y, Y[1] = splat(kY1) * z, Y[2] = splat(-kY1) * x;
    if (degree < 2) return;
    const vf xx = x * x, yy = y * y, zz = z * z, xy = x * y;
    Y[3] = splat(kY2xy) * xy, Y[4] = splat(-kY2xy) * (y * z), Y[5] = splat(kY2zz) * (two * zz - xx - yy);
    Y[6] = splat(-kY2xy) * (x * z), Y[7] = splat(kY2xx) * (xx - yy);
    if (degree < 3) return;
    Y[8] = splat(-kY3xxx) * y * (three * xx - yy), Y[9] = splat(kY3xyz) * xy * z;
    Y[10] = splat(-kY3zzx) * y * (four * zz - xx - yy), Y[11] = splat(kY3zzz) * z * (two * zz - three * (xx + yy));
    Y[12] = splat(-kY3zzx) * x * (four * zz - xx - yy), Y[13] = splat(kY3xxz) * z * (xx - yy);
    Y[14] = splat(-kY3xxx) * x * (xx - three * yy);
}

// The gradient of sum_k w_k Y_k with respect to d, taken as polynomials.
KG4D_INLINE void harmonics_gradient(const Sight& s, int degree, const vf* w, vf* v) {
    const vf x = s.d[0], y = s.d[1], z = s.d[2], two = splat(2.0f), three = splat(3.0f), four = splat(4.0f);
    v[0] = splat(-kY1) * w[2], v[1] = splat(-kY1) * w[0], v[2] = splat(kY1) * w[1];
    if (degree < 2) return;
    const vf xy = splat(kY2xy) * w[3], yz = splat(kY2xy) * w[4], xz = splat(kY2xy) * w[6];
    const vf along = splat(2.0f * kY2zz) * w[5], across = splat(2.0f * kY2xx) * w[7];
    v[0] = v[0] + y * xy - z * xz + x * (across - along);
    v[1] = v[1] + x * xy - z * yz - y * (across + along);
    v[2] = v[2] - y * yz - x * xz + two * z * along;
    if (degree < 3) return;
    const vf xx = x * x, yy = y * y, zz = z * z;
    const vf w8 = splat(kY3xxx) * w[8], w9 = splat(kY3xyz) * w[9], w10 = splat(kY3zzx) * w[10];
    const vf w11 = splat(3.0f * kY3zzz) * w[11], w12 = splat(kY3zzx) * w[12], w13 = splat(kY3xxz) * w[13];
    const vf w14 = splat(kY3xxx) * w[14], six = splat(6.0f), eight = splat(8.0f);
    v[0] = v[0] + two * x * y * (w10 - three * w8) + y * z * w9 + two * x * z * (w13 - w11) -
           w12 * (four * zz - three * xx - yy) - three * w14 * (xx - yy);
    v[1] = v[1] - three * w8 * (xx - yy) + x * z * w9 - w10 * (four * zz - xx - three * yy) -
           two * y * z * (w11 + w13) + x * y * (two * w12 + six * w14);
    v[2] = v[2] + x * y * w9 - eight * z * (y * w10 + x * w12) + w11 * (two * zz - xx - yy) + w13 * (xx - yy);
}

// Before the bound at 0; also leaves the harmonics.
KG4D_INLINE void unbounded_color(const ColorModel& m, const Sight& s, vf* Y, vf* color) {
    const int n = harmonics_count(m.degree);
    harmonics_at(s, m.degree, Y);
    for (int j = 0; j < 3; ++j) color[j] = m.base[j];
    for (int k = 0; k < n; ++k) {
        for (int j = 0; j < 3; ++j) color[j] = fma(Y[k], m.harmonics[3 * k + j], color[j]);
    }
}

KG4D_INLINE void color_seen(const ColorModel& m, const Camera& c, const vf* mean, vf* color) {
    vf Y[kMostHarmonics];
    unbounded_color(m, sight(c, mean), Y, color);
    for (int j = 0; j < 3; ++j) color[j] = max(color[j], splat(0.0f));
}

// From the gradient of the colour in one camera, zero where it is not seen, to those of the model (added to `sum`), of
// the mean and of the camera.
KG4D_INLINE void color_backward(const ColorModel& m, const Camera& c, const vf* mean, const vf* v_color,
                                ColorModel& sum, vf* v_mean, vf* pose) {
    const int n = harmonics_count(m.degree);
    const Sight s = sight(c, mean);
    vf Y[kMostHarmonics], color[3], v[3], w[kMostHarmonics], along[3];
    unbounded_color(m, s, Y, color);
    for (int j = 0; j < 3; ++j) {
        v[j] = keep(color[j] >= splat(0.0f), v_color[j]);
        sum.base[j] = sum.base[j] + v[j];
    }
    for (int k = 0; k < n; ++k) {
        for (int j = 0; j < 3; ++j) sum.harmonics[3 * k + j] = fma(Y[k], v[j], sum.harmonics[3 * k + j]);
        w[k] = dot(m.harmonics + 3 * k, v);
    }
    harmonics_gradient(s, m.degree, w, along);
    const vf radial = dot(s.d, along);
    for (int j = 0; j < 3; ++j) {  // d = (mean - centre) / distance
        along[j] = (along[j] - s.d[j] * radial) * s.inverse_distance;
        v_mean[j] = v_mean[j] + along[j];
    }
    if (pose == nullptr) return;
    for (int i = 0; i < 3; ++i) {  // centre = -R^T t
        for (int j = 0; j < 3; ++j) {
            pose[4 * i + j] = fma(splat(c.t[i]), along[j], pose[4 * i + j]);
            pose[4 * i + 3] = fma(splat(c.R[3 * i + j]), along[j], pose[4 * i + 3]);
        }
    }
}

}  // namespace KG4D_ISA
