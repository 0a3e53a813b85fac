// AVX-512 (F, BW, DQ, VL): one register per vector, masks in mask registers.
#pragma once

#include <immintrin.h>

namespace KG4D_ISA {

struct vf {
    __m512 v;
};
struct vm {
    __mmask16 m;
};

typedef __m512 vr;  // one register
constexpr int kRegister = 16;
KG4D_INLINE vr splat_register(float x) { return _mm512_set1_ps(x); }
KG4D_INLINE vr load_register(const float* p) { return _mm512_loadu_ps(p); }
KG4D_INLINE vr held(vr a) {  // in a register: not loaded once for each use
    asm("" : "+v"(a));
    return a;
}
KG4D_INLINE void store_register(float* p, vr a) { _mm512_storeu_ps(p, a); }

KG4D_INLINE vf splat(float x) { return {_mm512_set1_ps(x)}; }
KG4D_INLINE vf load(const float* p) { return {_mm512_loadu_ps(p)}; }
KG4D_INLINE void store(float* p, vf a) { _mm512_storeu_ps(p, a.v); }
KG4D_INLINE vf operator+(vf a, vf b) { return {_mm512_add_ps(a.v, b.v)}; }
KG4D_INLINE vf operator-(vf a, vf b) { return {_mm512_sub_ps(a.v, b.v)}; }
KG4D_INLINE vf operator*(vf a, vf b) { return {_mm512_mul_ps(a.v, b.v)}; }
KG4D_INLINE vf operator/(vf a, vf b) { return {_mm512_div_ps(a.v, b.v)}; }
KG4D_INLINE vf fma(vf a, vf b, vf c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }    // a b + c
KG4D_INLINE vf fnma(vf a, vf b, vf c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }  // c - a b
KG4D_INLINE vf min(vf a, vf b) { return {_mm512_min_ps(a.v, b.v)}; }
KG4D_INLINE vf max(vf a, vf b) { return {_mm512_max_ps(a.v, b.v)}; }
KG4D_INLINE vf abs(vf a) { return {_mm512_abs_ps(a.v)}; }
KG4D_INLINE vf sqrt(vf a) { return {_mm512_sqrt_ps(a.v)}; }

KG4D_INLINE vf ceil(vf a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC)}; }

KG4D_INLINE vf reciprocal(vf a) {  // one Newton step on a 14-bit estimate
    const __m512 x = _mm512_rcp14_ps(a.v);
    return {_mm512_mul_ps(x, _mm512_fnmadd_ps(a.v, x, _mm512_set1_ps(2.0f)))};
}

KG4D_INLINE vf minus_rounded(vf a) { return {_mm512_reduce_ps(a.v, 0x08)}; }  // a minus the nearest integer
KG4D_INLINE vf add_to_exponent(vf a, vf shifted) {
    return {_mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_castps_si512(a.v), _mm512_slli_epi32(_mm512_castps_si512(shifted.v), 23)))};
}

KG4D_INLINE vm operator<=(vf a, vf b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
KG4D_INLINE vm operator>=(vf a, vf b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
KG4D_INLINE vm operator>(vf a, vf b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
KG4D_INLINE vm operator&(vm a, vm b) { return {_kand_mask16(a.m, b.m)}; }
KG4D_INLINE vm and_not(vm a, vm b) { return {_kandn_mask16(b.m, a.m)}; }
KG4D_INLINE bool any(vm a) { return a.m != 0; }
KG4D_INLINE uint32_t bits(vm a) { return a.m; }
KG4D_INLINE vf select(vm m, vf a, vf b) { return {_mm512_mask_mov_ps(b.v, m.m, a.v)}; }
KG4D_INLINE vf keep(vm m, vf a) { return {_mm512_maskz_mov_ps(m.m, a.v)}; }
KG4D_INLINE vf keep_min_positive(vm m, vf a, vf b) {  // of numbers >= 0, which compare like integers, and faster so
    return {_mm512_castsi512_ps(_mm512_maskz_min_epi32(m.m, _mm512_castps_si512(a.v), _mm512_castps_si512(b.v)))};
}

// Lanes whose bit h is clear get x[l] + x[l + h]; the others get y[l - h] + y[l].
template <int h>
KG4D_INLINE vf fold_pair(vf x, vf y) {
    constexpr __mmask16 upper = h == 1 ? 0xAAAA : h == 2 ? 0xCCCC : h == 4 ? 0xF0F0 : 0xFF00;
    const __m512 kept = _mm512_mask_blend_ps(upper, x.v, y.v);
    if constexpr (h == 8) return {_mm512_add_ps(kept, _mm512_shuffle_f32x4(x.v, y.v, 0x4E))};
    if constexpr (h == 2) {
        const __m512d moved = _mm512_shuffle_pd(_mm512_castps_pd(x.v), _mm512_castps_pd(y.v), 0x55);
        return {_mm512_add_ps(kept, _mm512_castpd_ps(moved))};
    }
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i from =
        _mm512_mask_add_epi32(_mm512_add_epi32(lane, _mm512_set1_epi32(h)), upper, lane, _mm512_set1_epi32(16 - h));
    return {_mm512_add_ps(kept, _mm512_permutex2var_ps(x.v, from, y.v))};
}

// Four vectors as a 4x4 matrix in each group of four lanes, transposed.
KG4D_INLINE void transpose4(vf& a, vf& b, vf& c, vf& d) {
    const __m512 ab_low = _mm512_unpacklo_ps(a.v, b.v), ab_high = _mm512_unpackhi_ps(a.v, b.v);
    const __m512 cd_low = _mm512_unpacklo_ps(c.v, d.v), cd_high = _mm512_unpackhi_ps(c.v, d.v);
    a.v = _mm512_shuffle_ps(ab_low, cd_low, 0x44);
    b.v = _mm512_shuffle_ps(ab_low, cd_low, 0xEE);
    c.v = _mm512_shuffle_ps(ab_high, cd_high, 0x44);
    d.v = _mm512_shuffle_ps(ab_high, cd_high, 0xEE);
}

// In each group of four lanes, lane l gets lane l - 1 (up) or l + 1 (down), cyclically.
KG4D_INLINE vf rotate4_up(vf a) { return {_mm512_permute_ps(a.v, 0x93)}; }
KG4D_INLINE vf rotate4_down(vf a) { return {_mm512_permute_ps(a.v, 0x39)}; }

// Four floats from each of four rows that lie `stride` floats apart, and back.
KG4D_INLINE vf load_rows(const float* p, int64_t stride) {
    const __m256 low = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + stride), 1);
    const __m256 high =
        _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p + 2 * stride)), _mm_loadu_ps(p + 3 * stride), 1);
    return {_mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1)};
}
KG4D_INLINE void store_rows(float* p, int64_t stride, vf a) {
    _mm_storeu_ps(p, _mm512_castps512_ps128(a.v));
    _mm_storeu_ps(p + stride, _mm512_extractf32x4_ps(a.v, 1));
    _mm_storeu_ps(p + 2 * stride, _mm512_extractf32x4_ps(a.v, 2));
    _mm_storeu_ps(p + 3 * stride, _mm512_extractf32x4_ps(a.v, 3));
}

}  // namespace KG4D_ISA
