// The image loss and its gradient in one pass: mean L1, mean SSIM and the mean absolute error of coverage.
//
// SSIM as in Wang et al. 2004, with the conventions of torchmetrics: Gaussian window of 11 taps, sigma 1.5, borders
// mirrored without repeating the edge, mean over all pixels and channels.
#include "image_strip.h"
#include "isa.h"
#include "thread_pool.h"

namespace KG4D_ISA {
namespace {

using namespace kg4d;

constexpr int64_t kRowsOfStrip = 64, kFloatsOfTask = 1 << 12;

// Adds weight * d|a - b|/da, or only the sum where `gradient` is null.
double absolute_error(const float* a, const float* b, int64_t count, float weight, float* gradient) {
    vf sum = splat(0.0f);
    for (int64_t i = 0; i < count; i += kLanes) {
        const int n = count - i < kLanes ? static_cast<int>(count - i) : kLanes;
        const vf d = gather(a + i, 1, n) - gather(b + i, 1, n);
        sum = sum + abs(d);
        if (gradient) scatter(signed_as(d, splat(weight)), gradient + i, 1, n);
    }
    return total(sum);
}

// A strip recomputes ten rows of each neighbour, so there are no more of them than keep all threads busy.
int64_t strips_of(const kg4d_image_pair& pair) {
    const int64_t wanted = (2 * pair.threads + pair.images - 1) / pair.images,
                  most = (pair.height - 1) / kRowsOfStrip + 1;
    return pair.threads <= 1 || wanted < 1 ? 1 : wanted < most ? wanted : most;
}

}  // namespace

void image_loss(const kg4d_image_pair& pair, double* errors, float* gradient, float* alpha_gradient) {
    const int64_t strips = strips_of(pair), pixels = pair.images * pair.height * pair.width;
    const int64_t image_tasks = pair.images * strips;
    const int64_t alpha_tasks = pair.alpha ? (pixels - 1) / kFloatsOfTask + 1 : 0;
    const float alpha_step = static_cast<float>(pair.alpha_weight / static_cast<double>(pixels));
    // Every row has its own sums, so that the result does not depend on how the image is shared out.
    const int64_t rows = pair.images * pair.height;
    Buffer<double> sums;
    sums.reserve(2 * rows + alpha_tasks);
    double *l1 = sums.data(), *ssim = l1 + rows, *alpha = ssim + rows;
    parallel_for(pair.threads, image_tasks + alpha_tasks, [&](int64_t task) {
        if (task < image_tasks) {
            const int64_t image = task / strips, strip = task % strips, row = image * pair.height;
            const int64_t first = pair.height * strip / strips, last = pair.height * (strip + 1) / strips;
            ImageStrip(pair, image, first, last, gradient).run(l1 + row, ssim + row);
        } else {
            const int64_t at = (task - image_tasks) * kFloatsOfTask, left = pixels - at;
            alpha[task - image_tasks] =
                absolute_error(pair.alpha + at, pair.target_alpha + at, left < kFloatsOfTask ? left : kFloatsOfTask,
                               alpha_step, alpha_gradient ? alpha_gradient + at : nullptr);
        }
    });
    errors[0] = errors[1] = errors[2] = 0.0;
    for (int64_t row = 0; row < rows; ++row) errors[0] += l1[row], errors[1] += ssim[row];
    for (int64_t task = 0; task < alpha_tasks; ++task) errors[2] += alpha[task];
    const double floats = static_cast<double>(pixels) * static_cast<double>(pair.channels);
    errors[0] /= floats, errors[1] /= floats, errors[2] /= static_cast<double>(pixels);
}

}  // namespace KG4D_ISA
