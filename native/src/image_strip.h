// A strip of rows of one image pair: its sums of L1 and SSIM, and the gradient of their weighted sum.
//
// Images are channels-last. Sixteen rows are a block. Its columns are blurred along y as they lie in memory and then
// transposed, so that a vector holds one column of the block, neighbours along x are neighbouring vectors, and margins
// are copies of vectors. The SSIM is formed there, and its derivatives blurred along x; transposed back, they wait in
// tiles for those of the next block, for the blur along y. All of it follows the columns from left to right closely,
// so that little memory is in use at a time.
//
// The adjoint of the mirrored blur A needs no code of its own: A^T = D A D^-1, where D halves the two ends.
#pragma once

#include "buffer.h"
#include "image_window.h"
#include "kernels.h"

namespace KG4D_ISA {

KG4D_INLINE double total(vf v) {
    alignas(64) float lanes[kLanes];
    store(lanes, v);
    double sum = 0.0;
    for (float lane : lanes) sum += lane;
    return sum;
}

// `size` with the sign of x; 0 where that is 0 or NaN.
KG4D_INLINE vf signed_as(vf x, vf size) {
    const vf zero = splat(0.0f);
    return keep(x > zero, size) - keep(zero > x, size);
}

class ImageStrip {
public:
    ImageStrip(const kg4d_image_pair& pair, int64_t image, int64_t first, int64_t last, float* gradient)
        : pair_(pair),
          height_(pair.height),
          width_(pair.width),
          channels_(pair.channels),
          floats_(pair.width * pair.channels),
          prediction_(pair.prediction + image * pair.height * pair.width * pair.pixel_stride),
          target_(pair.target + image * pair.height * floats_),
          gradient_(gradient ? gradient + image * pair.height * floats_ : nullptr),
          first_(first),
          last_(last),
          slots_((pair.width + kReach + kLanes) | 1),
          plane_(channels_ * slots_ * kLanes),
          groups_((floats_ + kLanes - 1) / kLanes) {
        const bool copied = pair.pixel_stride != channels_;
        const int64_t columns = kMoments * plane_, carry = groups_ * kDerivatives * kCarried * kLanes;
        const int64_t tile = kMoments * kTileRows * kLanes, row = groups_ * kLanes;
        columns_ = kg4d::thread_scratch(columns + carry + tile + kBlurred + (copied ? kRing * row : 0));
        carry_ = columns_ + columns;
        tile_ = carry_ + carry;
        blurred_ = tile_ + tile;
        copies_ = copied ? blurred_ + kBlurred : nullptr;
        std::memset(carry_, 0, carry * sizeof *carry_);
        const double floats = static_cast<double>(pair.images * height_) * static_cast<double>(floats_);
        scale_ = static_cast<float>(-2.0 * pair.ssim_weight / floats);
        l1_step_ = static_cast<float>(pair.l1_weight / floats);
    }

    // Writes the sums of rows [first, last) to l1 and ssim, which begin with row 0, and their gradients.
    void run(double* l1, double* ssim) {
        const int64_t from = gradient_ ? clip(first_ - kRadius) : first_;
        const int64_t to = gradient_ ? clip(last_ + kRadius) : last_;
        next_copy_ = clip(from - kRadius);
        for (int64_t y = from; y < to; y += kLanes) {
            begin_block(y);
            walk_columns();
            for (int64_t i = 0; i < kLanes; ++i) {
                if (y + i < first_ || y + i >= last_) continue;
                l1[y + i] = total(load(l1_ + i * kLanes));
                ssim[y + i] = ssim_[i];
            }
        }
        const int64_t written = block_ + kLanes - kRadius;
        if (gradient_ == nullptr || written >= last_) return;
        begin_block(block_ + kLanes);  // below the last row: mirrored rows alone
        for (int64_t group = 0; group < groups_; ++group) load_carry(group), write_group(group);
    }

private:
    static constexpr int kMoments = 4;      // blurred: a, b, a a + b b, a b
    static constexpr int kDerivatives = 3;  // of the SSIM by the blurred a, a a and a b
    static constexpr int kReach = 2 * kRadius, kTileRows = kLanes + kReach, kCarried = kReach;
    static constexpr int kBlurred = kMoments * kLanes * kLanes;
    static constexpr int kRing = 32;               // of copied rows: a power of two, at least kTileRows
    static constexpr int64_t kAhead = 2 * kLanes;  // floats: where a row is asked for before it is read or written
    static constexpr int64_t kPixels = 64;         // of a step along x: a multiple of kLanes columns, above 2 * kRadius

    const kg4d_image_pair& pair_;
    const int64_t height_, width_, channels_, floats_;
    const float *prediction_, *target_;
    float* gradient_;
    const int64_t first_, last_, slots_, plane_, groups_;  // plane_: floats between planes of columns
    float *columns_, *carry_, *tile_, *blurred_, *copies_;
    const Window window_;
    float scale_, l1_step_;  // of the derivatives: that of the SSIM at a pixel, that of L1

    int64_t block_ = 0, next_copy_ = 0;  // first row of the block; first row that is not copied
    const float *a_[kTileRows], *b_[kTileRows];
    alignas(64) float ends_[kLanes];         // 2 for the first and the last row of the image, else 1
    alignas(64) float l1_[kLanes * kLanes];  // sixteen sums for each row
    double ssim_[kLanes];

    int64_t clip(int64_t y) const { return y < 0 ? 0 : y > height_ ? height_ : y; }
    bool is_end(int64_t y) const { return y == 0 || y == height_ - 1; }

    // Blurred moments of pixel x, and later what is made of them: derivatives lie 5 pixels further to the left, and
    // those blurred another 5, so that each takes the place of what is needed no more.
    float* column(int plane, int64_t channel, int64_t x) const {
        return columns_ + plane * plane_ + (channel * slots_ + x + kReach) * kLanes;
    }
    float* spread(int plane, int64_t channel, int64_t x) const { return column(plane, channel, x - kReach); }

    void begin_block(int64_t y) {
        block_ = y;
        for (; copies_ && next_copy_ < clip(y + kLanes + kRadius); ++next_copy_) {
            const float* source = prediction_ + next_copy_ * width_ * pair_.pixel_stride;
            float* copy = copies_ + next_copy_ % kRing * groups_ * kLanes;
            for (int64_t x = 0; x < width_; ++x) {
                for (int64_t k = 0; k < channels_; ++k) copy[x * channels_ + k] = source[x * pair_.pixel_stride + k];
            }
        }
        for (int i = 0; i < kTileRows; ++i) {
            const int64_t row = mirror(y + i - kRadius, height_);
            a_[i] = copies_ ? copies_ + row % kRing * groups_ * kLanes : prediction_ + row * floats_;
            b_[i] = target_ + row * floats_;
        }
        for (int i = 0; i < kLanes; ++i) ends_[i] = is_end(y + i) ? 2.0f : 1.0f, ssim_[i] = 0.0;
        std::memset(l1_, 0, sizeof l1_);
    }

    // Each stage goes as far to the right as what it reads is there.
    void walk_columns() {
        int64_t blurred = 0, compared = 0, spread = 0, written = 0;
        for (int64_t x = kPixels;; x += kPixels) {
            const bool all = x >= width_;
            for (; blurred < (all ? groups_ : x * channels_ / kLanes); ++blurred) blur_group(blurred);
            if (x == kPixels) mirror_left(kMoments, 0);
            if (all) mirror_right(kMoments, 0);
            const int64_t comparable = reach(all, x);
            if (gradient_) compare<true>(compared, comparable);
            else compare<false>(compared, comparable);
            compared = comparable;
            if (gradient_) {
                if (x == kPixels) mirror_left(kDerivatives, kRadius);
                if (all) mirror_right(kDerivatives, kRadius);
                const int64_t spreadable = reach(all, comparable);
                spread_derivatives(spread, spreadable);
                spread = spreadable;
                for (; written < (all ? groups_ : spread * channels_ / kLanes); ++written) {
                    load_carry(written), load_tile(written), write_group(written);
                }
            }
            if (all) return;
        }
    }

    // How far windows can be formed, four at a time, where `count` pixels are there.
    int64_t reach(bool all, int64_t count) const { return all ? width_ : (count - kRadius) & ~int64_t{3}; }

    // Margins of the planes whose pixel 0 is in column -shift.
    void mirror_left(int planes, int64_t shift) { copy_columns(planes, shift, -kRadius, 0); }
    void mirror_right(int planes, int64_t shift) { copy_columns(planes, shift, width_, width_ + kRadius + 3); }
    void copy_columns(int planes, int64_t shift, int64_t from, int64_t to) {
        for (int64_t x = from; x < to; ++x) {
            for (int plane = 0; plane < planes; ++plane) {
                for (int64_t k = 0; k < channels_; ++k) {
                    store(column(plane, k, x - shift), load(column(plane, k, mirror(x, width_) - shift)));
                }
            }
        }
    }

    // D or its inverse, along x, for what lies between two pixels.
    void scale_ends(int64_t shift, int64_t from, int64_t to, float factor) {
        for (int64_t x : {int64_t{0}, width_ - 1}) {
            if (x < from || x >= to || (x == 0 && from > 0)) continue;
            for (int plane = 0; plane < kDerivatives; ++plane) {
                for (int64_t k = 0; k < channels_; ++k) {
                    float* p = column(plane, k, x - shift);
                    store(p, load(p) * splat(factor));
                }
            }
            if (width_ == 1) return;
        }
    }

    // The moments of sixteen columns, blurred along y and transposed.
    void blur_group(int64_t group) {
        const int64_t at = group * kLanes;
        const int count = floats_ - at < kLanes ? static_cast<int>(floats_ - at) : kLanes;
        if (count == kLanes) read_rows(at, [](const float* p) { return load(p); });
        else read_rows(at, [count](const float* p) { return gather(p, 1, count); });
        float *const in = tile_, *const blurred = blurred_;
        for (int plane = 0; plane < kMoments; ++plane) {
            for (int i = 0; i < kLanes; i += 4) {
                window_.four(in + (plane * kTileRows + i) * kLanes, blurred + (plane * kLanes + i) * kLanes);
            }
        }
        int64_t x = at / channels_, k = at % channels_;
        const int64_t step = plane_;
        for (int i = 0; i < kLanes; i += 4) {
            float* to[4];
            for (float*& p : to) p = column(0, k, x), next(x, k);
            for (int plane = 0; plane < kMoments; ++plane) {
                const float* from = blurred + plane * kLanes * kLanes + i;
                vf v[4];
                for (int j = 0; j < 4; ++j) v[j] = load_rows(from + j * kLanes, 4 * kLanes);
                transpose4(v[0], v[1], v[2], v[3]);
                for (int j = 0; j < 4; ++j) store(to[j], v[j]), to[j] += step;
            }
        }
    }

    // The moments of sixteen columns as they are, and the sums of L1.
    template <class Load>
    KG4D_ALWAYS_INLINE void read_rows(int64_t at, const Load& load_part) {
        float *const out = tile_, *const sums = l1_;
        for (int i = 0; i < kTileRows; ++i) {
            const float *pa = a_[i] + at, *pb = b_[i] + at;
            prefetch(pa + kAhead), prefetch(pb + kAhead);
            const vf a = load_part(pa), b = load_part(pb);
            float* row = out + i * kLanes;
            store(row, a), store(row + kTileRows * kLanes, b);
            store(row + 2 * kTileRows * kLanes, fma(a, a, b * b)), store(row + 3 * kTileRows * kLanes, a * b);
            if (i < kRadius || i >= kRadius + kLanes) continue;
            float* sum = sums + (i - kRadius) * kLanes;
            store(sum, load(sum) + abs(a - b));
        }
    }

    void next(int64_t& x, int64_t& channel) const {
        if (++channel == channels_) channel = 0, ++x;
    }

    // The SSIM of pixels [from, to), and its derivatives: half of that by the blurred a, minus that by the blurred a a,
    // half of that by the blurred a b; all doubled at the ends.
    template <bool differentiated>
    void compare(int64_t from, int64_t to) {
        const float range = pair_.data_range;
        const vf c1 = splat(1e-4f * range * range), c2 = splat(9e-4f * range * range), two = splat(2.0f);
        const vf zero = splat(0.0f), one = splat(1.0f);
        alignas(64) float moments[kMoments][4][kLanes];
        const int64_t step = plane_;
        vf sum = zero;
        for (int64_t k = 0; k < channels_; ++k) {
            float* left = column(0, k, from - kRadius);
            for (int64_t x = from; x < to; x += 4, left += 4 * kLanes) {
                for (int m = 0; m < kMoments; ++m) window_.four(left + m * step, moments[m][0]);
                for (int i = 0; i < 4; ++i) {
                    const vf u = load(moments[0][i]), v = load(moments[1][i]), uv = u * v, squares = fma(u, u, v * v);
                    const vf n1 = fma(two, uv, c1), n2 = fma(two, load(moments[3][i]) - uv, c2);
                    const vf e1 = squares + c1, e2 = max(load(moments[2][i]) - squares, zero) + c2;
                    const vf r = one / (e1 * e2), s = n1 * n2 * r;
                    if (x + i < to) sum = sum + s;
                    if (!differentiated) continue;
                    const vf q = load(ends_) * r;
                    float* out = left + i * kLanes;  // kRadius pixels to the left
                    store(out, q * fnma(u, s * (e2 - e1), v * (n2 - n1)));
                    store(out + step, q * (s * e1)), store(out + 2 * step, q * n1);
                }
            }
        }
        alignas(64) float sums[kLanes];
        store(sums, sum);
        for (int i = 0; i < kLanes; ++i) ssim_[i] += sums[i];
        if (differentiated) scale_ends(kRadius, from, to, 2.0f);
    }

    // Derivatives of pixels [from, to), blurred along x.
    void spread_derivatives(int64_t from, int64_t to) {
        for (int plane = 0; plane < kDerivatives; ++plane) {
            for (int64_t k = 0; k < channels_; ++k) {
                float* p = spread(plane, k, from);  // also the first of what the window is over
                for (int64_t x = from; x < to; x += 4, p += 4 * kLanes) window_.four(p, p);
            }
        }
        scale_ends(kReach, from, to, 0.5f);
    }

    float* carry(int64_t group) const { return carry_ + group * kDerivatives * kCarried * kLanes; }

    void load_carry(int64_t group) {
        const float* from = carry(group);
        float* to = tile_;
        for (int plane = 0; plane < kDerivatives; ++plane) {
            for (int i = 0; i < kCarried; ++i, from += kLanes) store(to + (plane * kTileRows + i) * kLanes, load(from));
        }
    }

    void load_tile(int64_t group) {
        int64_t x = group * kLanes / channels_, k = group * kLanes % channels_;
        const int64_t step = plane_;
        float* const to = tile_ + kCarried * kLanes;
        for (int i = 0; i < kLanes; i += 4) {
            const float* from[4];
            for (const float*& p : from) p = spread(0, k, x), next(x, k);
            for (int plane = 0; plane < kDerivatives; ++plane) {
                vf v[4];
                for (int j = 0; j < 4; ++j) v[j] = load(from[j]), from[j] += step;
                transpose4(v[0], v[1], v[2], v[3]);
                for (int j = 0; j < 4; ++j) store_rows(to + (plane * kTileRows + j) * kLanes + i, 4 * kLanes, v[j]);
            }
        }
    }

    // Blurs a tile along y, goes on to the prediction, and keeps the rows that the next block needs.
    void write_group(int64_t group) {
        if (block_ == 0 || block_ + kTileRows > height_) {
            for (int64_t i = 1; i <= kRadius; ++i) mirror_row(-i), mirror_row(height_ - 1 + i);
        }
        float *const tile = tile_, *to = carry(group);
        for (int plane = 0; plane < kDerivatives; ++plane) {
            for (int i = kLanes; i < kTileRows; ++i, to += kLanes)
                store(to, load(tile + (plane * kTileRows + i) * kLanes));
        }
        const int64_t at = group * kLanes;
        const int count = floats_ - at < kLanes ? static_cast<int>(floats_ - at) : kLanes;
        if (count == kLanes) {
            write_rows(at, [](const float* p) { return load(p); }, [](float* p, vf v) { store(p, v); });
        } else {
            write_rows(
                at, [count](const float* p) { return gather(p, 1, count); },
                [count](float* p, vf v) { scatter(v, p, 1, count); });
        }
    }

    template <class Load, class Store>
    KG4D_ALWAYS_INLINE void write_rows(int64_t at, const Load& load_part, const Store& store_part) {
        const int64_t top = block_ - kRadius, low = first_ > top ? first_ - top : 0;
        const int64_t high = last_ < top + kLanes ? last_ - top : kLanes;
        const vf l1_step = splat(l1_step_);
        const float scale = scale_, *const tile = tile_;
        float* const out = gradient_ + top * floats_ + at;
        alignas(64) float by[kDerivatives][4][kLanes];
        for (int64_t i = low & ~int64_t{3}; i < high; i += 4) {
            for (int d = 0; d < kDerivatives; ++d) window_.four(tile + (d * kTileRows + i) * kLanes, by[d][0]);
            for (int64_t j = 0; j < 4; ++j) {
                const int64_t row = i + j;
                if (row < low || row >= high) continue;
                float* p = out + row * floats_;
                prefetch_to_write(p + kAhead);
                const vf a = load_part(a_[row] + at), b = load_part(b_[row] + at);
                const vf by_a = fma(b, load(by[2][j]), fnma(a, load(by[1][j]), load(by[0][j])));
                const vf factor = splat(is_end(top + row) ? 0.5f * scale : scale);
                store_part(p, fma(factor, by_a, signed_as(a - b, l1_step)));
            }
        }
    }

    // A row beyond the image's border, if both it and what it mirrors are in the tile.
    void mirror_row(int64_t y) {
        const int64_t first = block_ - kCarried, to = y - first, from = mirror(y, height_) - first;
        if (to < 0 || to >= kTileRows || from < 0 || from >= kTileRows) return;
        for (int plane = 0; plane < kDerivatives; ++plane) {
            float* row = tile_ + plane * kTileRows * kLanes;
            store(row + to * kLanes, load(row + from * kLanes));
        }
    }
};

}  // namespace KG4D_ISA
