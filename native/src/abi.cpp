// The C ABI: checks arguments, turns exceptions into status codes, chooses the instruction set, keeps used frames.
#include <atomic>
#include <chrono>
#include <cstring>
#include <mutex>
#include <new>
#include <stdexcept>

#include "kernels.h"

#if defined(KG4D_X86)
namespace avx512 {
extern const kg4d::Kernels kernels;
}
namespace avx2 {
extern const kg4d::Kernels kernels;
}
#endif
namespace generic {
extern const kg4d::Kernels kernels;
}

namespace {

using kg4d::Kernels;

bool available(const Kernels& k) {
#if defined(KG4D_X86)
    __builtin_cpu_init();
    const bool fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    if (&k == &avx2::kernels) return fma;
    if (&k == &avx512::kernels) {
        return fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512cd");
    }
#endif
    return &k == &generic::kernels;
}

#if defined(KG4D_X86)
const Kernels* const kFastestFirst[] = {&avx512::kernels, &avx2::kernels, &generic::kernels};
#else
const Kernels* const kFastestFirst[] = {&generic::kernels};
#endif

const Kernels* fastest() {
    for (const Kernels* k : kFastestFirst) {
        if (available(*k)) return k;
    }
    return &generic::kernels;
}

std::atomic<const Kernels*>& chosen() {
    static std::atomic<const Kernels*> kernels{fastest()};
    return kernels;
}

const Kernels& kernels() { return *chosen().load(std::memory_order_relaxed); }

template <class F>
int guarded(const F& body) {
    try {
        return body();
    } catch (const std::bad_alloc&) {
        return KG4D_OUT_OF_MEMORY;
    } catch (const std::length_error&) {
        return KG4D_OUT_OF_MEMORY;
    } catch (...) {
        return KG4D_BAD_ARGUMENT;
    }
}

bool in_range(int64_t x, int64_t low, int64_t high) { return x >= low && x <= high; }

bool valid(const kg4d_scene& s) {
    constexpr int64_t most = int64_t{1} << 31;
    if (!in_range(s.gaussians, 0, most) || !in_range(s.cameras, 1, 1 << 20) || !in_range(s.channels, 1, 1 << 16)) return false;
    if (!in_range(s.width, 1, 1 << 16) || !in_range(s.height, 1, 1 << 16) || s.gaussians * s.cameras >= most) return false;
    const int64_t tiles = s.cameras * ((s.width + 15) / 16) * ((s.height + 15) / 16);
    if (tiles >= most || s.viewmats == nullptr || s.Ks == nullptr) return false;
    if (s.gaussians > 0 && !(s.means && s.quats && s.scales && s.opacities && s.features)) return false;
    return s.eps2d >= 0 && s.near_plane >= 0 && s.far_plane >= 0 && s.radius_clip >= 0;  // false for NaN
}

class Stopwatch {
public:
    double lap() {
        const auto now = std::chrono::steady_clock::now();
        const double seconds = std::chrono::duration<double>(now - start_).count();
        start_ = now;
        return seconds;
    }

private:
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// A few frames wait for reuse, so that their memory need not be asked for and touched anew in every step.
constexpr int kWaitingFrames = 4;
std::mutex waiting_mutex;
kg4d_frame* waiting[kWaitingFrames] = {};

bool matches(const kg4d_frame& f, const kg4d_scene& s) {
    return f.complete && f.cameras == s.cameras && f.gaussians == s.gaussians && f.channels == s.channels &&
           f.width == s.width && f.height == s.height;
}

int forward(kg4d_frame& frame, const kg4d_scene& scene, const kg4d_images& out) {
    frame.complete = false;
    frame.cameras = scene.cameras, frame.gaussians = scene.gaussians, frame.channels = scene.channels;
    frame.width = scene.width, frame.height = scene.height;
    frame.tiles_x = (scene.width + kg4d::kTile - 1) / kg4d::kTile;
    frame.tiles_y = (scene.height + kg4d::kTile - 1) / kg4d::kTile;
    frame.tiles = scene.cameras * frame.tiles_x * frame.tiles_y;
    frame.has_depth = out.depth != nullptr;
    frame.statistics = {};
    Stopwatch watch;
    if (!kernels().project(frame, scene, out)) return KG4D_NOT_FINITE;
    frame.statistics.projection = watch.lap();
    kg4d::sort_by_depth(frame, scene.threads);
    kernels().bin(frame, scene);
    frame.statistics.pairs = frame.pairs;
    frame.statistics.binning = watch.lap();
    kernels().forward(frame, scene, out);
    frame.statistics.forward = watch.lap();
    frame.complete = true;
    return KG4D_OK;
}

int backward(kg4d_frame& frame, const kg4d_scene& scene, const kg4d_gradients& gradients) {
    static thread_local kg4d::Buffer<float> pair_gradients;
    const int64_t stride = kg4d::pair_gradient_stride(kg4d::kept_channels(frame, gradients));
    pair_gradients.reserve(frame.pairs * stride);
    Stopwatch watch;
    kernels().backward(frame, scene, gradients, pair_gradients.data());
    frame.statistics.backward = watch.lap();
    kernels().project_backward(frame, scene, gradients, pair_gradients.data());
    frame.statistics.projection_backward = watch.lap();
    return KG4D_OK;
}

bool valid(const kg4d_chosen& c) {
    constexpr int64_t most = int64_t{1} << 31;
    if (!in_range(c.count_frames, 1, 1 << 20) || !in_range(c.gaussians, 1, most) || !in_range(c.rows, 0, most) ||
        !in_range(c.columns, 0, 1 << 20) || !in_range(c.width, 1, 1 << 16) || !in_range(c.height, 1, 1 << 16)) {
        return false;
    }
    if (!(c.means && c.quats && c.scales && c.viewmats && c.Ks && c.eps2d >= 0)) return false;
    if (c.rows * c.columns > 0 && !(c.ids && c.frames)) return false;
    for (int64_t r = 0; r < c.rows; ++r) {
        if (!in_range(c.frames[r], 0, c.count_frames - 1)) return false;
        for (int64_t k = 0; k < c.columns; ++k) {
            if (c.ids[r * c.columns + k] >= c.gaussians) return false;
        }
    }
    return true;
}

bool valid(const kg4d_image_pair& p) {
    return p.prediction && p.target && in_range(p.images, 1, 1 << 24) && in_range(p.height, 1, 1 << 16) &&
           in_range(p.width, 1, 1 << 16) && in_range(p.channels, 1, 1 << 10) &&
           in_range(p.pixel_stride, p.channels, 1 << 16) && p.data_range > 0;
}

}  // namespace

extern "C" {

int kg4d_abi_version(void) { return KG4D_ABI_VERSION; }

const char* kg4d_isa(void) { return kernels().isa; }

int kg4d_use_isa(const char* name) {
    for (const Kernels* k : kFastestFirst) {
        if (name == nullptr || std::strcmp(name, k->isa) != 0 || !available(*k)) continue;
        chosen().store(k);
        return KG4D_OK;
    }
    return KG4D_BAD_ARGUMENT;
}

double kg4d_fma_rate(void) { return kernels().fma_rate(); }

kg4d_frame* kg4d_frame_new(void) {
    {
        std::lock_guard<std::mutex> lock(waiting_mutex);
        for (kg4d_frame*& slot : waiting) {
            if (slot != nullptr) {
                kg4d_frame* frame = slot;
                slot = nullptr;
                frame->complete = false;
                return frame;
            }
        }
    }
    return new (std::nothrow) kg4d_frame();
}

void kg4d_frame_free(kg4d_frame* frame) {
    if (frame == nullptr) return;
    {
        std::lock_guard<std::mutex> lock(waiting_mutex);
        for (kg4d_frame*& slot : waiting) {
            if (slot == nullptr) {
                slot = frame;
                return;
            }
        }
    }
    delete frame;
}

int kg4d_frame_statistics(const kg4d_frame* frame, kg4d_statistics* out) {
    if (frame == nullptr || out == nullptr) return KG4D_BAD_ARGUMENT;
    *out = frame->statistics;
    return KG4D_OK;
}

int kg4d_forward(kg4d_frame* frame, const kg4d_scene* scene, const kg4d_images* out) {
    if (!frame || !scene || !out || !valid(*scene) || !out->image || !out->alpha) return KG4D_BAD_ARGUMENT;
    if (scene->gaussians > 0 && (!out->means2d || !out->radii)) return KG4D_BAD_ARGUMENT;
    return guarded([&] { return forward(*frame, *scene, *out); });
}

int kg4d_backward(kg4d_frame* frame, const kg4d_scene* scene, const kg4d_gradients* g) {
    if (!frame || !scene || !g || !valid(*scene)) return KG4D_BAD_ARGUMENT;
    if (!matches(*frame, *scene)) return KG4D_BAD_FRAME;
    if (scene->gaussians > 0 && !(g->means && g->quats && g->scales && g->opacities && g->means2d_total)) {
        return KG4D_BAD_ARGUMENT;
    }
    return guarded([&] { return backward(*frame, *scene, *g); });
}

int kg4d_contributors(const kg4d_frame* frame, int64_t n, const int32_t* cameras, const int32_t* pixels, int64_t k,
                      int32_t threads, int64_t* ids, float* weights) {
    if (!frame || !in_range(n, 0, 1 << 30) || !in_range(k, 1, 1 << 20)) return KG4D_BAD_ARGUMENT;
    if (n > 0 && !(cameras && pixels && ids && weights)) return KG4D_BAD_ARGUMENT;
    if (!frame->complete) return KG4D_BAD_FRAME;
    return guarded([&] {
        kernels().contributors(*frame, n, cameras, pixels, k, threads, ids, weights);
        return KG4D_OK;
    });
}

int kg4d_project_chosen(const kg4d_chosen* chosen, float* means2d, float* covs) {
    if (!chosen || !valid(*chosen)) return KG4D_BAD_ARGUMENT;
    if (chosen->rows * chosen->columns > 0 && !(means2d && covs)) return KG4D_BAD_ARGUMENT;
    return guarded([&] {
        kernels().project_chosen(*chosen, means2d, covs);
        return KG4D_OK;
    });
}

int kg4d_project_chosen_backward(const kg4d_chosen* chosen, const float* v_means2d, const float* v_covs, float* v_means,
                                 float* v_quats, float* v_scales) {
    if (!chosen || !valid(*chosen) || !v_means || !v_quats || !v_scales) return KG4D_BAD_ARGUMENT;
    return guarded([&] {
        kernels().project_chosen_backward(*chosen, v_means2d, v_covs, v_means, v_quats, v_scales);
        return KG4D_OK;
    });
}

int kg4d_l1_ssim(const kg4d_image_pair* pair, double* l1, double* ssim, float* ssim_gradient) {
    if (!pair || !l1 || !ssim || !valid(*pair)) return KG4D_BAD_ARGUMENT;
    return guarded([&] {
        kernels().l1_ssim(*pair, l1, ssim, ssim_gradient);
        return KG4D_OK;
    });
}

int kg4d_l1_ssim_backward(const kg4d_image_pair* pair, const float* ssim_gradient, float l1_weight, float ssim_weight,
                          float* gradient) {
    if (!pair || !ssim_gradient || !gradient || !valid(*pair)) return KG4D_BAD_ARGUMENT;
    return guarded([&] {
        kernels().l1_ssim_backward(*pair, ssim_gradient, l1_weight, ssim_weight, gradient);
        return KG4D_OK;
    });
}

}  // extern "C"
