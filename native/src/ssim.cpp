// Mean L1 and mean SSIM of image pairs in one pass, with the derivative of the SSIM.
//
// Images are channels-last, so a row is one flat array in which neighbouring pixels lie `channels` floats apart and the
// horizontal window needs no reordering. Rows stream through: blurred input rows wait in a ring until the window of a
// row of statistics is complete, and rows of derivatives wait in a second ring for the adjoint of the blur.
//
// SSIM as in Wang et al. 2004, with the conventions of torchmetrics: Gaussian window of 11 taps, sigma 1.5, borders
// mirrored without repeating the edge, variances clamped at zero, mean over all pixels and channels.
#include "isa.h"
#include "simd/lanes.h"
#include "thread_pool.h"

namespace KG4D_ISA {
namespace {

using namespace kg4d;

constexpr int kRadius = 5, kTaps = 2 * kRadius + 1;
constexpr int kRing = 16;  // rows kept; a power of two above kTaps
constexpr int64_t kRowsPerTask = 64;
constexpr int kMoments = 5;      // blurred: a, b, a a, b b, a b
constexpr int kDerivatives = 3;  // of the SSIM by the blurred a, a a and a b

alignas(64) constexpr float kLaneIndex[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

struct Window {
    float tap[kTaps];
    Window() {
        double sum = 0.0, value[kTaps];
        for (int k = 0; k < kTaps; ++k) sum += value[k] = std::exp(-(k - kRadius) * (k - kRadius) / (2.0 * 1.5 * 1.5));
        for (int k = 0; k < kTaps; ++k) tap[k] = static_cast<float>(value[k] / sum);
    }
};

KG4D_INLINE int64_t mirror(int64_t i, int64_t n) {
    if (n == 1) return 0;
    const int64_t period = 2 * (n - 1);
    i = ((i % period) + period) % period;
    return i < n ? i : period - i;
}

// Rows that a vertical window touches and with which weights.
struct Rows {
    const float* row[kTaps];
    float weight[kTaps];
    int count = 0;

    void add(const float* r, float w) {
        for (int i = 0; i < count; ++i) {
            if (row[i] == r) {
                weight[i] += w;
                return;
            }
        }
        row[count] = r;
        weight[count++] = w;
    }
};

KG4D_INLINE vf weighted_sum(const Rows& rows, int64_t offset) {
    vf sum = splat(rows.weight[0]) * load(rows.row[0] + offset);
    for (int i = 1; i < rows.count; ++i) sum = fma(splat(rows.weight[i]), load(rows.row[i] + offset), sum);
    return sum;
}

// One task: the rows [first, last) of one image.
class Strip {
public:
    Strip(const kg4d_image_pair& pair, int64_t image, int64_t first, int64_t last, float* gradient)
        : pair_(pair),
          prediction_(pair.prediction + image * pair.height * pair.width * pair.pixel_stride),
          target_(pair.target + image * pair.height * pair.width * pair.channels),
          gradient_(gradient ? gradient + image * pair.height * pair.width * pair.channels : nullptr),
          floats_(pair.width * pair.channels),
          edge_(kRadius * pair.channels),
          row_((floats_ + 2 * edge_ + 2 * kLanes) / kLanes * kLanes + kLanes),
          first_(first),
          last_(last) {
        float* memory = thread_scratch(row_ * (kRing * (kMoments + kDerivatives + 2) + 2 + 2 * kDerivatives));
        const auto take = [&](int64_t rows) {
            float* p = memory;
            memory += rows * row_;
            return p;
        };
        moments_ = take(kRing * kMoments);
        derivatives_ = take(kRing * kDerivatives);
        inputs_ = take(kRing * 2);
        padded_ = take(2);
        spread_ = take(kDerivatives);
        wide_ = take(kDerivatives);
    }

    void run() {
        const int64_t h = pair_.height, reach = gradient_ ? 2 * kRadius : kRadius;
        int64_t statistics = gradient_ ? clip(first_ - kRadius) : first_, output = first_;
        const int64_t statistics_end = gradient_ ? clip(last_ + kRadius) : last_;
        for (int64_t y = clip(first_ - reach); y < clip(last_ + reach); ++y) {
            read_row(y);
            for (; statistics < statistics_end && ready(statistics, y, h); ++statistics) {
                compare_row(statistics);
                for (; gradient_ && output < last_ && ready(output, statistics, h); ++output) write_row(output);
            }
        }
    }

    double l1 = 0.0, ssim = 0.0;

private:
    const kg4d_image_pair& pair_;
    const float *prediction_, *target_;
    float* gradient_;
    const int64_t floats_, edge_, row_;  // of a row: floats, floats of its margin, floats that it takes in memory
    const int64_t first_, last_;
    float *moments_, *derivatives_, *inputs_, *padded_, *spread_, *wide_;
    const Window window_;

    int64_t clip(int64_t y) const { return y < 0 ? 0 : y > pair_.height ? pair_.height : y; }
    static bool ready(int64_t y, int64_t available, int64_t h) {
        return (y + kRadius < h ? y + kRadius : h - 1) <= available;
    }
    float* moment(int64_t y, int which) const { return moments_ + (y % kRing * kMoments + which) * row_; }
    float* derivative(int64_t y, int which) const { return derivatives_ + (y % kRing * kDerivatives + which) * row_; }
    float* input(int64_t y, int which) const { return inputs_ + (y % kRing * 2 + which) * row_; }

    void zero_tail(float* row, int64_t from) const { std::memset(row + from, 0, (row_ - from) * sizeof *row); }

    void fill_margins(const float* row, float* padded) const {
        const int64_t c = pair_.channels;
        std::memcpy(padded + edge_, row, floats_ * sizeof *row);
        for (int64_t i = 1; i <= kRadius; ++i) {
            std::memcpy(padded + edge_ - i * c, row + mirror(-i, pair_.width) * c, c * sizeof *row);
            std::memcpy(padded + edge_ + floats_ + (i - 1) * c, row + mirror(pair_.width - 1 + i, pair_.width) * c,
                        c * sizeof *row);
        }
        zero_tail(padded, floats_ + 2 * edge_);
    }

    // Reads input row y and leaves its horizontally blurred moments in the ring.
    void read_row(int64_t y) {
        float *a = input(y, 0), *b = input(y, 1), *pa = padded_, *pb = padded_ + row_;
        const int64_t c = pair_.channels, w = pair_.width;
        const float* source = prediction_ + y * w * pair_.pixel_stride;
        if (pair_.pixel_stride == c) {
            std::memcpy(a, source, floats_ * sizeof *a);
        } else {
            for (int64_t x = 0; x < w; ++x) {
                for (int64_t k = 0; k < c; ++k) a[x * c + k] = source[x * pair_.pixel_stride + k];
            }
        }
        std::memcpy(b, target_ + y * floats_, floats_ * sizeof *b);
        zero_tail(a, floats_), zero_tail(b, floats_);
        if (y >= first_ && y < last_) add_l1(a, b);
        fill_margins(a, pa), fill_margins(b, pb);
        for (int64_t i = 0; i < floats_; i += kLanes) {
            vf sum[kMoments];
            for (vf& s : sum) s = splat(0.0f);
            for (int k = 0; k < kTaps; ++k) {
                const vf va = load(pa + i + k * c), vb = load(pb + i + k * c), tap = splat(window_.tap[k]);
                const vf wa = tap * va, wb = tap * vb;
                sum[0] = sum[0] + wa, sum[1] = sum[1] + wb;
                sum[2] = fma(wa, va, sum[2]), sum[3] = fma(wb, vb, sum[3]), sum[4] = fma(wa, vb, sum[4]);
            }
            for (int m = 0; m < kMoments; ++m) store(moment(y, m) + i, sum[m]);
        }
    }

    void add_l1(const float* a, const float* b) {
        vf sum = splat(0.0f);
        for (int64_t i = 0; i < floats_; i += kLanes) sum = sum + abs(load(a + i) - load(b + i));
        l1 += total(sum);
    }

    static double total(vf v) {
        alignas(64) float lanes[kLanes];
        store(lanes, v);
        double sum = 0.0;
        for (float lane : lanes) sum += lane;
        return sum;
    }

    // The statistics of row y, its SSIM, and its derivatives spread horizontally by the adjoint of the blur.
    void compare_row(int64_t y) {
        Rows rows[kMoments];
        for (int k = 0; k < kTaps; ++k) {
            const int64_t from = mirror(y + k - kRadius, pair_.height);
            for (int m = 0; m < kMoments; ++m) rows[m].add(moment(from, m), window_.tap[k]);
        }
        const float range = pair_.data_range;
        const vf c1 = splat(1e-4f * range * range), c2 = splat(9e-4f * range * range), two = splat(2.0f);
        const vf zero = splat(0.0f), one = splat(1.0f), lanes = load(kLaneIndex);
        vf sum = zero;
        for (int64_t i = 0; i < floats_; i += kLanes) {
            const vf u = weighted_sum(rows[0], i), v = weighted_sum(rows[1], i);
            const vf xx = fnma(u, u, weighted_sum(rows[2], i)), yy = fnma(v, v, weighted_sum(rows[3], i));
            const vf xy = fnma(u, v, weighted_sum(rows[4], i));
            const vf n1 = fma(two, u * v, c1), n2 = fma(two, xy, c2);
            const vf e1 = fma(u, u, fma(v, v, c1)), e2 = max(xx, zero) + max(yy, zero) + c2;
            const vf r = one / (e1 * e2), s = n1 * n2 * r;
            sum = sum + keep(splat(static_cast<float>(floats_ - i)) > lanes, s);
            if (gradient_ == nullptr) continue;
            const vf by_xx = keep(xx > zero, zero - s * e1 * r), by_xy = two * n1 * r;
            const vf by_u = two * (v * n2 * r - u * (s * e2 * r + by_xx)) - v * by_xy;
            store(spread_ + i, by_u), store(spread_ + row_ + i, by_xx), store(spread_ + 2 * row_ + i, by_xy);
        }
        if (y >= first_ && y < last_) ssim += total(sum);
        if (gradient_ == nullptr) return;
        for (int d = 0; d < kDerivatives; ++d) spread_row(spread_ + d * row_, derivative(y, d));
    }

    // The adjoint of mirroring the margins and blurring: a blur that reaches into the margins, which fold back.
    void spread_row(const float* in, float* out) const {
        const int64_t c = pair_.channels;
        float *wide = wide_, *padded = wide_ + row_;  // `padded` has twice the margin
        std::memset(padded, 0, 2 * edge_ * sizeof *padded);
        std::memcpy(padded + 2 * edge_, in, floats_ * sizeof *in);
        std::memset(padded + 2 * edge_ + floats_, 0, (2 * edge_ + kLanes) * sizeof *padded);
        for (int64_t i = 0; i < floats_ + 2 * edge_; i += kLanes) {
            vf sum = splat(window_.tap[0]) * load(padded + i);
            for (int k = 1; k < kTaps; ++k) sum = fma(splat(window_.tap[k]), load(padded + i + k * c), sum);
            store(wide + i, sum);
        }
        std::memcpy(out, wide + edge_, floats_ * sizeof *out);
        zero_tail(out, floats_);
        for (int64_t i = 1; i <= kRadius; ++i) {
            float* left = out + mirror(-i, pair_.width) * c;
            float* right = out + mirror(pair_.width - 1 + i, pair_.width) * c;
            for (int64_t k = 0; k < c; ++k) left[k] += wide[edge_ - i * c + k];
            for (int64_t k = 0; k < c; ++k) right[k] += wide[edge_ + floats_ + (i - 1) * c + k];
        }
    }

    // The gradient of row y: the vertical adjoint, then the chain rule to the prediction.
    void write_row(int64_t y) {
        const int64_t h = pair_.height;
        Rows rows[kDerivatives];
        for (int64_t from = clip(y - kRadius); from < clip(y + kRadius + 1); ++from) {
            float weight = 0.0f;
            for (int k = 0; k < kTaps; ++k) weight += mirror(from + k - kRadius, h) == y ? window_.tap[k] : 0.0f;
            for (int d = 0; d < kDerivatives; ++d) rows[d].add(derivative(from, d), weight);
        }
        const float *a = input(y, 0), *b = input(y, 1);
        const double count = static_cast<double>(pair_.images) * static_cast<double>(h * floats_);
        const vf scale = splat(static_cast<float>(1.0 / count)), two = splat(2.0f);
        float* out = gradient_ + y * floats_;
        for (int64_t i = 0; i < floats_; i += kLanes) {
            const vf by_u = weighted_sum(rows[0], i);
            const vf by_xx = weighted_sum(rows[1], i), by_xy = weighted_sum(rows[2], i);
            const vf g = scale * fma(load(b + i), by_xy, fma(two * load(a + i), by_xx, by_u));
            scatter_row(g, out + i, floats_ - i);
        }
    }

    static void scatter_row(vf v, float* out, int64_t left) {
        if (left >= kLanes) store(out, v);
        else scatter(v, out, 1, static_cast<int>(left));
    }
};

}  // namespace

void l1_ssim(const kg4d_image_pair& pair, double* l1, double* ssim, float* gradient) {
    const int64_t strips = (pair.height + kRowsPerTask - 1) / kRowsPerTask, tasks = pair.images * strips;
    Buffer<double> sums;
    sums.reserve(2 * tasks);
    parallel_for(pair.threads, tasks, [&](int64_t task) {
        const int64_t first = task % strips * kRowsPerTask, last = first + kRowsPerTask;
        Strip strip(pair, task / strips, first, last < pair.height ? last : pair.height, gradient);
        strip.run();
        sums[2 * task] = strip.l1;
        sums[2 * task + 1] = strip.ssim;
    });
    *l1 = *ssim = 0.0;
    for (int64_t task = 0; task < tasks; ++task) *l1 += sums[2 * task], *ssim += sums[2 * task + 1];
    const double count =
        static_cast<double>(pair.images * pair.height) * static_cast<double>(pair.width * pair.channels);
    *l1 /= count, *ssim /= count;
}

void l1_ssim_backward(const kg4d_image_pair& pair, const float* ssim_gradient, float l1_weight, float ssim_weight,
                      float* gradient) {
    const int64_t c = pair.channels, rows = pair.images * pair.height;
    const double count = static_cast<double>(rows) * static_cast<double>(pair.width * c);
    const float scale = static_cast<float>(l1_weight / count);
    parallel_for(pair.threads, (rows + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task) {
        const int64_t end = rows < (task + 1) * kRowsPerTask ? rows : (task + 1) * kRowsPerTask;
        const int64_t first = task * kRowsPerTask * pair.width, last = end * pair.width;
        for (int64_t pixel = first; pixel < last; ++pixel) {
            for (int64_t k = 0; k < c; ++k) {
                const float d = pair.prediction[pixel * pair.pixel_stride + k] - pair.target[pixel * c + k];
                const float sign = static_cast<float>((d > 0.0f) - (d < 0.0f));
                gradient[pixel * c + k] = scale * sign + ssim_weight * ssim_gradient[pixel * c + k];
            }
        }
    });
}

}  // namespace KG4D_ISA
