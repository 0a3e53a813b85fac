// Portable build on the vector extensions of GCC and Clang: four vectors of four lanes (SSE2, NEON, ...).
#pragma once

namespace KG4D_ISA {

typedef float f4 __attribute__((vector_size(16)));
typedef int32_t i4 __attribute__((vector_size(16)));

struct vf {
    f4 q[4];
};
struct vm {
    i4 q[4];
};

template <class F>
KG4D_INLINE vf each(F f) {
    return {{f(0), f(1), f(2), f(3)}};
}
template <class F>
KG4D_INLINE vm each_mask(F f) {
    return {{f(0), f(1), f(2), f(3)}};
}
KG4D_INLINE f4 load4(const float* p) {
    f4 r;
    std::memcpy(&r, p, sizeof r);
    return r;
}

typedef f4 vr;  // one register
constexpr int kRegister = 4;
KG4D_INLINE vr splat_register(float x) { return f4{x, x, x, x}; }
KG4D_INLINE vr load_register(const float* p) { return load4(p); }
KG4D_INLINE vr held(vr a) { return a; }
KG4D_INLINE void store_register(float* p, vr a) { std::memcpy(p, &a, sizeof a); }

KG4D_INLINE vf splat(float x) {
    return each([&](int) { return f4{x, x, x, x}; });
}
KG4D_INLINE vf load(const float* p) {
    return each([&](int i) { return load4(p + 4 * i); });
}
KG4D_INLINE void store(float* p, vf a) { std::memcpy(p, &a, sizeof a); }
KG4D_INLINE vf operator+(vf a, vf b) {
    return each([&](int i) { return a.q[i] + b.q[i]; });
}
KG4D_INLINE vf operator-(vf a, vf b) {
    return each([&](int i) { return a.q[i] - b.q[i]; });
}
KG4D_INLINE vf operator*(vf a, vf b) {
    return each([&](int i) { return a.q[i] * b.q[i]; });
}
KG4D_INLINE vf operator/(vf a, vf b) {
    return each([&](int i) { return a.q[i] / b.q[i]; });
}
KG4D_INLINE vf fma(vf a, vf b, vf c) { return a * b + c; }  // contracted where the machine has FMA
KG4D_INLINE vf fnma(vf a, vf b, vf c) { return c - a * b; }
KG4D_INLINE vf min(vf a, vf b) {
    return each([&](int i) { return a.q[i] < b.q[i] ? a.q[i] : b.q[i]; });
}
KG4D_INLINE vf max(vf a, vf b) {
    return each([&](int i) { return a.q[i] > b.q[i] ? a.q[i] : b.q[i]; });
}
KG4D_INLINE vf abs(vf a) {
    return each([&](int i) { return (f4)((i4)a.q[i] & 0x7fffffff); });
}
KG4D_INLINE vf sqrt(vf a) {
    return each([&](int i) {
        return f4{__builtin_sqrtf(a.q[i][0]), __builtin_sqrtf(a.q[i][1]), __builtin_sqrtf(a.q[i][2]),
                  __builtin_sqrtf(a.q[i][3])};
    });
}
KG4D_INLINE vf ceil(vf a) {
    return each([&](int i) {
        return f4{__builtin_ceilf(a.q[i][0]), __builtin_ceilf(a.q[i][1]), __builtin_ceilf(a.q[i][2]),
                  __builtin_ceilf(a.q[i][3])};
    });
}
KG4D_INLINE vf reciprocal(vf a) { return splat(1.0f) / a; }
KG4D_INLINE vf minus_rounded(vf a) {      // a minus the nearest integer, for |a| < 2^22
    const vf magic = splat(12582912.0f);  // 1.5 * 2^23
    return a - ((a + magic) - magic);
}
KG4D_INLINE vf add_to_exponent(vf a, vf shifted) {  // unsigned: the shift may push bits out
    typedef uint32_t u4 __attribute__((vector_size(16)));
    return each([&](int i) { return (f4)((u4)a.q[i] + ((u4)shifted.q[i] << 23)); });
}

KG4D_INLINE vm operator<=(vf a, vf b) {
    return each_mask([&](int i) { return a.q[i] <= b.q[i]; });
}
KG4D_INLINE vm operator>=(vf a, vf b) {
    return each_mask([&](int i) { return a.q[i] >= b.q[i]; });
}
KG4D_INLINE vm operator>(vf a, vf b) {
    return each_mask([&](int i) { return a.q[i] > b.q[i]; });
}
KG4D_INLINE vm operator&(vm a, vm b) {
    return each_mask([&](int i) { return a.q[i] & b.q[i]; });
}
KG4D_INLINE vm and_not(vm a, vm b) {
    return each_mask([&](int i) { return a.q[i] & ~b.q[i]; });
}
KG4D_INLINE bool any(vm a) {
    const i4 all = a.q[0] | a.q[1] | a.q[2] | a.q[3];
    return (all[0] | all[1] | all[2] | all[3]) != 0;
}
KG4D_INLINE uint32_t bits(vm a) {
    uint32_t r = 0;
    for (int i = 0; i < 16; ++i) r |= static_cast<uint32_t>(a.q[i / 4][i % 4] & 1) << i;
    return r;
}
KG4D_INLINE vf select(vm m, vf a, vf b) {
    return each([&](int i) { return m.q[i] ? a.q[i] : b.q[i]; });
}
KG4D_INLINE vf keep(vm m, vf a) {
    return each([&](int i) { return (f4)((i4)a.q[i] & m.q[i]); });
}
KG4D_INLINE vf keep_min_positive(vm m, vf a, vf b) { return keep(m, min(a, b)); }  // of numbers >= 0

// Lanes whose bit h is clear get x[l] + x[l + h]; the others get y[l - h] + y[l].
template <int h>
KG4D_INLINE vf fold_pair(vf x, vf y) {
    if constexpr (h == 8) return {{x.q[0] + x.q[2], x.q[1] + x.q[3], y.q[0] + y.q[2], y.q[1] + y.q[3]}};
    if constexpr (h == 4) return {{x.q[0] + x.q[1], y.q[0] + y.q[1], x.q[2] + x.q[3], y.q[2] + y.q[3]}};
    return each([&](int i) {
        const f4 a = x.q[i], b = y.q[i];
        if constexpr (h == 2) return f4{a[0] + a[2], a[1] + a[3], b[0] + b[2], b[1] + b[3]};
        return f4{a[0] + a[1], b[0] + b[1], a[2] + a[3], b[2] + b[3]};
    });
}

// Four vectors as a 4x4 matrix in each group of four lanes, transposed.
KG4D_INLINE void transpose4(vf& a, vf& b, vf& c, vf& d) {
    for (int i = 0; i < 4; ++i) {
        const f4 r0 = a.q[i], r1 = b.q[i], r2 = c.q[i], r3 = d.q[i];
        a.q[i] = f4{r0[0], r1[0], r2[0], r3[0]};
        b.q[i] = f4{r0[1], r1[1], r2[1], r3[1]};
        c.q[i] = f4{r0[2], r1[2], r2[2], r3[2]};
        d.q[i] = f4{r0[3], r1[3], r2[3], r3[3]};
    }
}

// In each group of four lanes, lane l gets lane l - 1 (up) or l + 1 (down), cyclically.
KG4D_INLINE vf rotate4_up(vf a) {
    return each([&](int i) { return f4{a.q[i][3], a.q[i][0], a.q[i][1], a.q[i][2]}; });
}
KG4D_INLINE vf rotate4_down(vf a) {
    return each([&](int i) { return f4{a.q[i][1], a.q[i][2], a.q[i][3], a.q[i][0]}; });
}

// Four floats from each of four rows that lie `stride` floats apart, and back.
KG4D_INLINE vf load_rows(const float* p, int64_t stride) {
    return each([&](int i) { return load4(p + i * stride); });
}
KG4D_INLINE void store_rows(float* p, int64_t stride, vf a) {
    for (int i = 0; i < 4; ++i) std::memcpy(p + i * stride, &a.q[i], sizeof a.q[i]);
}

}  // namespace KG4D_ISA
