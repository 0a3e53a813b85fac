// Slices Gaussians in space and time at given times, sixteen at a time, forward and backward.
//
// Axes are in the order t, x, y, z, that of the quaternion of a vector. With unit quaternions l and r, the rotation
// p -> l p conj(r) is the matrix R = L Q, L that of multiplying by l from the left, Q by conj(r) from the right. The
// rows of A = R diag(s) are a_t, a_x, a_y, a_z, and the covariance is A A^T, so that S_tt = |a_t|^2 and the velocity
// S_xt / S_tt is v = A_x a_t / |a_t|^2. The conditional covariance S_xx - S_xt S_tx / S_tt is B B^T with
// B = A_x - v a_t^T: a sum of squares, without cancellation. Only centre and opacity depend on the time.
#include "isa.h"
#include "simd/lanes.h"
#include "thread_pool.h"

namespace KG4D_ISA {
namespace {

using namespace kg4d;

constexpr int64_t kGaussiansPerTask = 1024;
constexpr int kFromAxis[4] = {3, 0, 1, 2};  // where t, x, y, z lie in the arrays of callers
constexpr float kLog2E = 1.44269504f;

struct Rotor {  // a unit quaternion, w x y z
    vf q[4], inverse_norm;
};

KG4D_INLINE Rotor load_rotor(const float* p, int count) {
    Rotor o;
    load_each(p, 4, count, o.q);
    const vf norm2 = fma(o.q[0], o.q[0], fma(o.q[1], o.q[1], fma(o.q[2], o.q[2], o.q[3] * o.q[3])));
    o.inverse_norm = splat(1.0f) / sqrt(max(norm2, splat(1e-24f)));
    for (vf& part : o.q) part = part * o.inverse_norm;
    return o;
}

// Writes the gradient of the quaternion as it is given, from that of the unit one.
KG4D_INLINE void write_rotor_gradient(const Rotor& o, const vf* v, float* p, int count) {
    const vf along = fma(v[0], o.q[0], fma(v[1], o.q[1], fma(v[2], o.q[2], v[3] * o.q[3])));
    vf turned[4];
    for (int k = 0; k < 4; ++k) turned[k] = fnma(along, o.q[k], v[k]) * o.inverse_norm;
    store_each(turned, 4, count, p);
}

KG4D_INLINE vf dot4(const vf* a, const vf* b) { return fma(a[0], b[0], fma(a[1], b[1], fma(a[2], b[2], a[3] * b[3]))); }

struct Moments {
    Rotor left, right;
    vf L[4][4], Q[4][4], R[4][4], A[4][4], B[3][4], s[4], mean[4], opacity;
    vf tt, inverse_tt, velocity[3];
};

KG4D_INLINE Moments load_moments(const kg4d_spacetime& in, int64_t first, int count) {
    Moments m;
    m.left = load_rotor(in.left + 4 * first, count), m.right = load_rotor(in.right + 4 * first, count);
    const vf zero = splat(0.0f);
    const vf w = m.left.q[0], x = m.left.q[1], y = m.left.q[2], z = m.left.q[3];
    const vf W = m.right.q[0], X = m.right.q[1], Y = m.right.q[2], Z = m.right.q[3];
    const vf L[4][4] = {
        {w, zero - x, zero - y, zero - z}, {x, w, zero - z, y}, {y, z, w, zero - x}, {z, zero - y, x, w}};
    const vf Q[4][4] = {
        {W, X, Y, Z}, {zero - X, W, zero - Z, Y}, {zero - Y, Z, W, zero - X}, {zero - Z, zero - Y, X, W}};
    vf scales[4], means[4];
    load_each(in.scales + 4 * first, 4, count, scales);
    load_each(in.means + 4 * first, 4, count, means);
    for (int j = 0; j < 4; ++j) {
        m.s[j] = scales[kFromAxis[j]], m.mean[j] = means[kFromAxis[j]];
        const vf column[4] = {Q[0][j], Q[1][j], Q[2][j], Q[3][j]};
        for (int i = 0; i < 4; ++i) {
            m.L[i][j] = L[i][j], m.Q[i][j] = Q[i][j];
            m.R[i][j] = dot4(L[i], column);
            m.A[i][j] = m.R[i][j] * m.s[j];
        }
    }
    m.tt = max(dot4(m.A[0], m.A[0]), splat(1e-20f));
    m.inverse_tt = splat(1.0f) / m.tt;
    for (int i = 0; i < 3; ++i) {
        m.velocity[i] = dot4(m.A[i + 1], m.A[0]) * m.inverse_tt;
        for (int j = 0; j < 4; ++j) m.B[i][j] = fnma(m.velocity[i], m.A[0][j], m.A[i + 1][j]);
    }
    m.opacity = gather(in.opacities + first, 1, count);
    return m;
}

// The weight of a time at a distance from the centre, zero below the least.
KG4D_INLINE vf temporal_weight(const kg4d_spacetime& in, const Moments& m, vf distance) {
    const vf power = splat(-0.5f * kLog2E) * distance * distance * m.inverse_tt;
    const vf weight = exp2(max(power, splat(-126.0f)));
    return keep(weight >= splat(in.least_weight), weight);
}

void slice_block(const kg4d_spacetime& in, const kg4d_slices& out, int64_t first, int count) {
    const Moments m = load_moments(in, first, count);
    vf covariance[6];
    for (int i = 0, k = 0; i < 3; ++i) {
        scatter(m.velocity[i], out.velocities + 3 * first + i, 3, count);
        for (int j = i; j < 3; ++j, ++k) covariance[k] = dot4(m.B[i], m.B[j]);
    }
    store_each(covariance, 6, count, out.covariances + 6 * first);
    for (int64_t b = 0; b < in.times; ++b) {
        const vf distance = splat(in.at[b]) - m.mean[0];
        const int64_t at = b * in.gaussians + first;
        scatter(m.opacity * temporal_weight(in, m, distance), out.opacities + at, 1, count);
        for (int i = 0; i < 3; ++i) {
            scatter(fma(m.velocity[i], distance, m.mean[i + 1]), out.means + 3 * at + i, 3, count);
        }
    }
}

void slice_backward_block(const kg4d_spacetime& in, const kg4d_slice_gradients& g, int64_t first, int count) {
    const Moments m = load_moments(in, first, count);
    const vf zero = splat(0.0f);
    vf v_mean[4] = {zero, zero, zero, zero}, v_velocity[3] = {zero, zero, zero}, v_opacity = zero, v_tt = zero;
    if (g.velocities) {
        for (int i = 0; i < 3; ++i) v_velocity[i] = gather(g.velocities + 3 * first + i, 3, count);
    }
    for (int64_t b = 0; b < in.times; ++b) {
        const vf distance = splat(in.at[b]) - m.mean[0];
        const int64_t at = b * in.gaussians + first;
        if (g.means) {
            for (int i = 0; i < 3; ++i) {
                const vf v = gather(g.means + 3 * at + i, 3, count);
                v_mean[i + 1] = v_mean[i + 1] + v;
                v_velocity[i] = fma(distance, v, v_velocity[i]);
                v_mean[0] = fnma(m.velocity[i], v, v_mean[0]);
            }
        }
        if (g.opacities) {
            const vf weight = temporal_weight(in, m, distance), v = gather(g.opacities + at, 1, count) * weight;
            const vf pull = v * m.opacity * distance * m.inverse_tt;
            v_opacity = v_opacity + v;
            v_mean[0] = v_mean[0] + pull;
            v_tt = fma(splat(0.5f) * pull, distance * m.inverse_tt, v_tt);
        }
    }
    vf v_A[4][4];
    for (auto& row : v_A) {
        for (vf& value : row) value = zero;
    }
    if (g.covariances) {  // dL/dB = 2 G B; and B a_t = 0, so that nothing flows to the velocity
        vf G[3][3], v[6];
        load_each(g.covariances + 6 * first, 6, count, v);
        for (int i = 0, k = 0; i < 3; ++i) {
            for (int j = i; j < 3; ++j, ++k) {
                G[i][j] = G[j][i] = i == j ? v[k] + v[k] : v[k];
            }
        }
        for (int i = 0; i < 3; ++i) {
            for (int j = 0; j < 4; ++j) {
                v_A[i + 1][j] = fma(G[i][0], m.B[0][j], fma(G[i][1], m.B[1][j], G[i][2] * m.B[2][j]));
                v_A[0][j] = fnma(m.velocity[i], v_A[i + 1][j], v_A[0][j]);
            }
        }
    }
    for (int i = 0; i < 3; ++i) {
        const vf scaled = v_velocity[i] * m.inverse_tt;
        v_tt = fnma(scaled, m.velocity[i], v_tt);
        for (int j = 0; j < 4; ++j) {
            v_A[i + 1][j] = fma(scaled, m.A[0][j], v_A[i + 1][j]);
            v_A[0][j] = fma(scaled, m.A[i + 1][j], v_A[0][j]);
        }
    }
    vf v_R[4][4], v_scales[4], v_means[4];
    for (int j = 0; j < 4; ++j) {
        v_A[0][j] = fma(v_tt + v_tt, m.A[0][j], v_A[0][j]);
        vf v_scale = zero;
        for (int i = 0; i < 4; ++i) {
            v_scale = fma(v_A[i][j], m.R[i][j], v_scale);
            v_R[i][j] = v_A[i][j] * m.s[j];
        }
        v_scales[kFromAxis[j]] = v_scale, v_means[kFromAxis[j]] = v_mean[j];
    }
    store_each(v_scales, 4, count, g.v_scales + 4 * first);
    store_each(v_means, 4, count, g.v_means + 4 * first);
    vf v_L[4][4], v_Q[4][4];
    for (int i = 0; i < 4; ++i) {
        for (int j = 0; j < 4; ++j) {
            v_L[i][j] = dot4(v_R[i], m.Q[j]);
            v_Q[i][j] =
                fma(m.L[0][i], v_R[0][j], fma(m.L[1][i], v_R[1][j], fma(m.L[2][i], v_R[2][j], m.L[3][i] * v_R[3][j])));
        }
    }
    const vf v_left[4] = {v_L[0][0] + v_L[1][1] + v_L[2][2] + v_L[3][3], v_L[1][0] - v_L[0][1] + v_L[3][2] - v_L[2][3],
                          v_L[2][0] - v_L[0][2] + v_L[1][3] - v_L[3][1], v_L[3][0] - v_L[0][3] + v_L[2][1] - v_L[1][2]};
    const vf v_right[4] = {v_Q[0][0] + v_Q[1][1] + v_Q[2][2] + v_Q[3][3], v_Q[0][1] - v_Q[1][0] + v_Q[3][2] - v_Q[2][3],
                           v_Q[0][2] - v_Q[2][0] + v_Q[1][3] - v_Q[3][1],
                           v_Q[0][3] - v_Q[3][0] + v_Q[2][1] - v_Q[1][2]};
    write_rotor_gradient(m.left, v_left, g.v_left + 4 * first, count);
    write_rotor_gradient(m.right, v_right, g.v_right + 4 * first, count);
    scatter(v_opacity, g.v_opacities + first, 1, count);
}

template <class F>
void for_each_block(const kg4d_spacetime& in, const F& f) {
    const int64_t n = in.gaussians;
    parallel_for(in.threads, (n + kGaussiansPerTask - 1) / kGaussiansPerTask, [&](int64_t task) {
        const int64_t begin = task * kGaussiansPerTask;
        const int64_t end = n < begin + kGaussiansPerTask ? n : begin + kGaussiansPerTask;
        for (int64_t first = begin; first < end; first += kLanes) {
            f(first, static_cast<int>(end - first < kLanes ? end - first : kLanes));
        }
    });
}

}  // namespace

void slice(const kg4d_spacetime& in, const kg4d_slices& out) {
    for_each_block(in, [&](int64_t first, int count) { slice_block(in, out, first, count); });
}

void slice_backward(const kg4d_spacetime& in, const kg4d_slice_gradients& gradients) {
    for_each_block(in, [&](int64_t first, int count) { slice_backward_block(in, gradients, first, count); });
}

}  // namespace KG4D_ISA
