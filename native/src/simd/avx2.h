// AVX2 with FMA: two registers per vector, masks as all-ones lanes.
#pragma once

#include <immintrin.h>

namespace KG4D_ISA {

struct vf {
    __m256 lo, hi;
};
struct vm {
    __m256 lo, hi;
};

typedef __m256 vr;  // one register
constexpr int kRegister = 8;
KG4D_INLINE vr splat_register(float x) { return _mm256_set1_ps(x); }
KG4D_INLINE vr load_register(const float* p) { return _mm256_loadu_ps(p); }
KG4D_INLINE vr held(vr a) {  // in a register: not loaded once for each use
    asm("" : "+x"(a));
    return a;
}
KG4D_INLINE void store_register(float* p, vr a) { _mm256_storeu_ps(p, a); }

KG4D_INLINE vf splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
KG4D_INLINE vf load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
KG4D_INLINE void store(float* p, vf a) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}
KG4D_INLINE vf operator+(vf a, vf b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
KG4D_INLINE vf operator-(vf a, vf b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
KG4D_INLINE vf operator*(vf a, vf b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
KG4D_INLINE vf operator/(vf a, vf b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
KG4D_INLINE vf fma(vf a, vf b, vf c) {  // a b + c
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
KG4D_INLINE vf fnma(vf a, vf b, vf c) {  // c - a b
    return {_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
}
KG4D_INLINE vf min(vf a, vf b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
KG4D_INLINE vf max(vf a, vf b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
KG4D_INLINE vf abs(vf a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
KG4D_INLINE vf sqrt(vf a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
KG4D_INLINE vf ceil(vf a) { return {_mm256_ceil_ps(a.lo), _mm256_ceil_ps(a.hi)}; }
KG4D_INLINE vf reciprocal(vf a) { return splat(1.0f) / a; }

KG4D_INLINE vf minus_rounded(vf a) {  // a minus the nearest integer
    constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_sub_ps(a.lo, _mm256_round_ps(a.lo, nearest)), _mm256_sub_ps(a.hi, _mm256_round_ps(a.hi, nearest))};
}
KG4D_INLINE __m256 min_positive_8(__m256 a, __m256 b) {
    return _mm256_castsi256_ps(_mm256_min_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
}
KG4D_INLINE __m256 add_to_exponent_8(__m256 a, __m256 shifted) {
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(_mm256_castps_si256(shifted), 23)));
}
KG4D_INLINE vf add_to_exponent(vf a, vf shifted) {
    return {add_to_exponent_8(a.lo, shifted.lo), add_to_exponent_8(a.hi, shifted.hi)};
}

KG4D_INLINE vm operator<=(vf a, vf b) {
    return {_mm256_cmp_ps(a.lo, b.lo, _CMP_LE_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_LE_OQ)};
}
KG4D_INLINE vm operator>=(vf a, vf b) {
    return {_mm256_cmp_ps(a.lo, b.lo, _CMP_GE_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_GE_OQ)};
}
KG4D_INLINE vm operator>(vf a, vf b) {
    return {_mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ)};
}
KG4D_INLINE vm operator&(vm a, vm b) { return {_mm256_and_ps(a.lo, b.lo), _mm256_and_ps(a.hi, b.hi)}; }
KG4D_INLINE vm and_not(vm a, vm b) { return {_mm256_andnot_ps(b.lo, a.lo), _mm256_andnot_ps(b.hi, a.hi)}; }
KG4D_INLINE bool any(vm a) { return _mm256_movemask_ps(_mm256_or_ps(a.lo, a.hi)) != 0; }
KG4D_INLINE uint32_t bits(vm a) {
    return static_cast<uint32_t>(_mm256_movemask_ps(a.lo)) | static_cast<uint32_t>(_mm256_movemask_ps(a.hi)) << 8;
}
KG4D_INLINE vf select(vm m, vf a, vf b) {
    return {_mm256_blendv_ps(b.lo, a.lo, m.lo), _mm256_blendv_ps(b.hi, a.hi, m.hi)};
}
KG4D_INLINE vf keep(vm m, vf a) { return {_mm256_and_ps(m.lo, a.lo), _mm256_and_ps(m.hi, a.hi)}; }
KG4D_INLINE vf keep_min_positive(vm m, vf a, vf b) {  // of numbers >= 0, which compare like integers, and faster so
    return keep(m, {min_positive_8(a.lo, b.lo), min_positive_8(a.hi, b.hi)});
}

template <int h>
KG4D_INLINE __m256 fold_pair_8(__m256 x, __m256 y) {
    if constexpr (h == 1) {
        return _mm256_add_ps(_mm256_blend_ps(x, y, 0xAA), _mm256_permute_ps(_mm256_blend_ps(x, y, 0x55), 0xB1));
    } else if constexpr (h == 2) {
        return _mm256_add_ps(_mm256_blend_ps(x, y, 0xCC), _mm256_permute_ps(_mm256_blend_ps(x, y, 0x33), 0x4E));
    } else {
        return _mm256_add_ps(_mm256_blend_ps(x, y, 0xF0), _mm256_permute2f128_ps(x, y, 0x21));
    }
}
// Lanes whose bit h is clear get x[l] + x[l + h]; the others get y[l - h] + y[l].
template <int h>
KG4D_INLINE vf fold_pair(vf x, vf y) {
    if constexpr (h == 8) return {_mm256_add_ps(x.lo, x.hi), _mm256_add_ps(y.lo, y.hi)};
    else return {fold_pair_8<h>(x.lo, y.lo), fold_pair_8<h>(x.hi, y.hi)};
}

KG4D_INLINE void transpose4_8(__m256& a, __m256& b, __m256& c, __m256& d) {
    const __m256 ab_low = _mm256_unpacklo_ps(a, b), ab_high = _mm256_unpackhi_ps(a, b);
    const __m256 cd_low = _mm256_unpacklo_ps(c, d), cd_high = _mm256_unpackhi_ps(c, d);
    a = _mm256_shuffle_ps(ab_low, cd_low, 0x44);
    b = _mm256_shuffle_ps(ab_low, cd_low, 0xEE);
    c = _mm256_shuffle_ps(ab_high, cd_high, 0x44);
    d = _mm256_shuffle_ps(ab_high, cd_high, 0xEE);
}
// Four vectors as a 4x4 matrix in each group of four lanes, transposed.
KG4D_INLINE void transpose4(vf& a, vf& b, vf& c, vf& d) {
    transpose4_8(a.lo, b.lo, c.lo, d.lo);
    transpose4_8(a.hi, b.hi, c.hi, d.hi);
}

// In each group of four lanes, lane l gets lane l - 1 (up) or l + 1 (down), cyclically.
KG4D_INLINE vf rotate4_up(vf a) { return {_mm256_permute_ps(a.lo, 0x93), _mm256_permute_ps(a.hi, 0x93)}; }
KG4D_INLINE vf rotate4_down(vf a) { return {_mm256_permute_ps(a.lo, 0x39), _mm256_permute_ps(a.hi, 0x39)}; }

// Four floats from each of four rows that lie `stride` floats apart, and back.
KG4D_INLINE vf load_rows(const float* p, int64_t stride) {
    return {
        _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + stride), 1),
        _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p + 2 * stride)), _mm_loadu_ps(p + 3 * stride), 1)};
}
KG4D_INLINE void store_rows(float* p, int64_t stride, vf a) {
    _mm_storeu_ps(p, _mm256_castps256_ps128(a.lo));
    _mm_storeu_ps(p + stride, _mm256_extractf128_ps(a.lo, 1));
    _mm_storeu_ps(p + 2 * stride, _mm256_castps256_ps128(a.hi));
    _mm_storeu_ps(p + 3 * stride, _mm256_extractf128_ps(a.hi, 1));
}

}  // namespace KG4D_ISA
