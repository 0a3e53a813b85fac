// Radix sort of the visible splats of each camera by depth. Plain scalar code, shared by all instruction sets.
#include <cstring>
#include <utility>

#include "passes.h"
#include "thread_pool.h"

namespace kg4d {
namespace {

constexpr int kDigitBits = 12, kDigits = 1 << kDigitBits;

// One stable counting pass on the digit at `shift`; false when all keys share the digit and nothing was moved.
bool sort_digit(int64_t n, int shift, const uint32_t* keys, const uint32_t* ids, uint32_t* keys_out,
                uint32_t* ids_out) {
    uint32_t position[kDigits] = {};
    for (int64_t i = 0; i < n; ++i) ++position[(keys[i] >> shift) & (kDigits - 1)];
    if (position[(keys[0] >> shift) & (kDigits - 1)] == static_cast<uint32_t>(n)) return false;
    uint32_t sum = 0;
    for (uint32_t& p : position) sum += std::exchange(p, sum);
    for (int64_t i = 0; i < n; ++i) {
        const uint32_t to = position[(keys[i] >> shift) & (kDigits - 1)]++;
        keys_out[to] = keys[i];
        ids_out[to] = ids[i];
    }
    return true;
}

void sort_range(int64_t n, uint32_t* keys, uint32_t* ids, uint32_t* keys_scratch, uint32_t* ids_scratch) {
    if (n == 0) return;
    uint32_t low = keys[0], high = keys[0];
    for (int64_t i = 0; i < n; ++i) {
        low = keys[i] < low ? keys[i] : low;
        high = keys[i] > high ? keys[i] : high;
    }
    for (int64_t i = 0; i < n; ++i) keys[i] -= low;  // depths of one scene share their leading bits: fewer digits
    uint32_t *from_keys = keys, *from_ids = ids;
    for (int shift = 0; shift < 32 && (high - low) >> shift != 0; shift += kDigitBits) {
        if (!sort_digit(n, shift, from_keys, from_ids, keys_scratch, ids_scratch)) continue;
        std::swap(from_keys, keys_scratch);
        std::swap(from_ids, ids_scratch);
    }
    if (from_ids != ids) std::memcpy(ids, from_ids, n * sizeof *ids);
}

}  // namespace

void sort_by_depth(kg4d_render_plan& plan, int threads) {
    const int64_t n = plan.gaussians;
    uint32_t* keys = plan.keys.reserve(plan.cameras * n);
    uint32_t* order = plan.order.reserve(plan.cameras * n);
    uint32_t* keys_scratch = plan.keys_scratch.reserve(plan.cameras * n);
    uint32_t* order_scratch = plan.order_scratch.reserve(plan.cameras * n);
    Buffer<int64_t> counts;
    counts.reserve(plan.cameras);
    parallel_for(threads, plan.cameras, [&](int64_t camera) {
        const int64_t first = camera * n;
        int64_t visible = 0;
        for (int64_t i = first; i < first + n; ++i) {
            std::memcpy(&keys[first + visible], &plan.splats[i].depth, sizeof(float));  // positive floats sort as bits
            order[first + visible] = static_cast<uint32_t>(i);
            visible += plan.radii[2 * i] > 0;
        }
        sort_range(visible, keys + first, order + first, keys_scratch + first, order_scratch + first);
        counts[camera] = visible;
    });
    plan.visible = 0;
    for (int64_t camera = 0; camera < plan.cameras; ++camera) {
        std::memmove(order + plan.visible, order + camera * n, counts[camera] * sizeof *order);
        plan.visible += counts[camera];
    }
}

}  // namespace kg4d
