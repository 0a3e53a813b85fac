// Calls the C ABI with random, odd and hostile arguments. Built with AddressSanitizer and UndefinedBehaviorSanitizer by
// tests/kernels/test_fuzz.py; every call must return a status, and none may touch memory that is not its own.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "kg4d_kernels.h"

namespace {

std::mt19937 generator(0);

int64_t whole(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(generator); }
bool chance(double p) { return std::uniform_real_distribution<double>(0, 1)(generator) < p; }

float number(float scale) {
    if (chance(0.002)) {
        constexpr float inf = std::numeric_limits<float>::infinity();
        const float odd[] = {0.0f, -1.0f, 1e38f, -1e38f, 1e-38f, 1e-45f, 1e30f, 1e10f, inf, std::nanf("")};
        return odd[whole(0, chance(0.1) ? 9 : 7)];
    }
    return scale * std::normal_distribution<float>()(generator);
}

std::vector<float> numbers(int64_t n, float scale, float offset = 0.0f) {
    std::vector<float> v(static_cast<size_t>(n));
    for (float& x : v) x = offset + number(scale);
    return v;
}

// Exactly as large as the call may touch, on the heap, so that the sanitizer sees one float too many.
struct Scene {
    std::vector<float> means, quats, scales, covariances, opacities, features, harmonics, viewmats, Ks, background;
    kg4d_scene scene{};

    Scene() {
        const int64_t n = chance(0.1) ? 0 : whole(1, chance(0.05) ? 3000 : 120), c = whole(1, 3);
        const int32_t degree = chance(0.3) ? static_cast<int32_t>(whole(1, 3)) : 0;
        const int64_t d = degree > 0    ? 3
                          : chance(0.1) ? whole(33, 70)
                                        : whole(1, 20),
                      w = whole(1, 70), h = whole(1, 70);
        const bool own = degree == 0 && chance(0.5);
        means = numbers(3 * n, 0.5f), quats = numbers(4 * n, 1.0f);
        scales = numbers(3 * n, 0.1f);
        if (chance(0.4)) covariances = numbers(6 * n, 0.02f, 0.01f);
        opacities = numbers(n, 0.5f, 0.5f);
        features = numbers((own ? c : 1) * n * d, 1.0f);
        harmonics = numbers(n * 3 * ((degree + 1) * (degree + 1) - 1), 1.0f);
        viewmats.assign(16 * c, 0.0f), Ks.assign(9 * c, 0.0f);
        for (int64_t i = 0; i < c; ++i) {
            for (int k = 0; k < 4; ++k) viewmats[16 * i + 5 * k] = 1.0f;
            viewmats[16 * i + 11] = 2.5f + number(1.0f);
            Ks[9 * i] = Ks[9 * i + 4] = w * (1.2f + number(0.2f));
            Ks[9 * i + 2] = w / 2.0f + number(5.0f), Ks[9 * i + 5] = h / 2.0f + number(5.0f), Ks[9 * i + 8] = 1.0f;
        }
        if (chance(0.5)) background = numbers(c * d, 1.0f);
        scene = {n,
                 c,
                 d,
                 w,
                 h,
                 means.data(),
                 covariances.empty() ? quats.data() : nullptr,
                 covariances.empty() ? scales.data() : nullptr,
                 covariances.empty() ? nullptr : covariances.data(),
                 opacities.data(),
                 features.data(),
                 degree > 0 ? harmonics.data() : nullptr,
                 viewmats.data(),
                 Ks.data(),
                 background.empty() ? nullptr : background.data(),
                 std::fabs(number(0.3f)),
                 0.01f,
                 1e10f,
                 chance(0.2) ? 2.0f : 0.0f,
                 own,
                 chance(0.3),
                 degree,
                 static_cast<int32_t>(whole(-1, 4))};
    }
};

void expect(bool good, const char* what) {
    if (good) return;
    std::fprintf(stderr, "fuzz: %s\n", what);
    std::abort();
}

void render_once() {
    Scene s;
    const kg4d_scene& in = s.scene;
    const int64_t n = in.gaussians, c = in.cameras, pixels = c * in.width * in.height;
    std::vector<float> image(pixels * in.channels), alpha(pixels), depth(pixels), means2d(2 * c * n);
    std::vector<int32_t> radii(2 * c * n);
    const kg4d_images out = {image.data(), alpha.data(), chance(0.5) ? depth.data() : nullptr, means2d.data(),
                             radii.data()};
    const std::unique_ptr<kg4d_render_plan, void (*)(kg4d_render_plan*)> plan(kg4d_render_plan_new(),
                                                                              kg4d_render_plan_free);
    const int status = kg4d_forward(plan.get(), &in, &out);
    expect(status == KG4D_OK || status == KG4D_NOT_FINITE || status == KG4D_BAD_ARGUMENT, "unexpected forward status");
    if (status == KG4D_OK) {
        for (float a : alpha) expect(a >= 0.0f && a <= 1.0f, "alpha outside [0, 1]");
    }
    const std::vector<float> v_image = numbers(pixels * in.channels, 1.0f), v_alpha = numbers(pixels, 1.0f);
    const std::vector<float> v_means2d = numbers(2 * c * n, 1.0f);
    std::vector<float> g_means(3 * n), g_quats(4 * n), g_scales(3 * n), g_covariances(6 * n), g_opacities(n),
        g_features(s.features.size());
    std::vector<float> g_harmonics(s.harmonics.size()), g_viewmats(16 * c), g_means2d(2 * c * n), absgrad(2 * c * n);
    const kg4d_gradients gradients = {chance(0.9) ? v_image.data() : nullptr,
                                      chance(0.5) ? v_alpha.data() : nullptr,
                                      chance(0.5) ? v_alpha.data() : nullptr,
                                      chance(0.3) ? v_means2d.data() : nullptr,
                                      g_means.data(),
                                      in.covariances ? nullptr : g_quats.data(),
                                      in.covariances ? nullptr : g_scales.data(),
                                      in.covariances ? g_covariances.data() : nullptr,
                                      g_opacities.data(),
                                      chance(0.7) ? g_features.data() : nullptr,
                                      chance(0.7) ? g_harmonics.data() : nullptr,
                                      chance(0.5) ? g_viewmats.data() : nullptr,
                                      g_means2d.data(),
                                      chance(0.5) ? absgrad.data() : nullptr};
    const int back = kg4d_backward(plan.get(), &in, &gradients);
    expect(status == KG4D_OK ? back == KG4D_OK : back != KG4D_OK, "backward does not follow forward");
    const int64_t p = whole(0, 40), k = whole(1, 9);
    std::vector<int32_t> cameras(p), points(2 * p);
    for (int32_t& x : cameras) x = static_cast<int32_t>(whole(-1, c));
    for (int32_t& x : points) x = static_cast<int32_t>(chance(0.1) ? whole(INT32_MIN, INT32_MAX) : whole(-2, 75));
    std::vector<int64_t> ids(p * k);
    std::vector<float> weights(p * k);
    kg4d_contributors(plan.get(), p, cameras.data(), points.data(), k, in.threads, ids.data(), weights.data());
}

void compare_once() {
    const int64_t b = whole(1, 3), h = whole(1, chance(0.2) ? 150 : 20), w = whole(1, chance(0.2) ? 200 : 40),
                  c = whole(1, 20);
    const int64_t stride = c + (chance(0.5) ? whole(0, 5) : 0);
    const std::vector<float> prediction = numbers(b * h * w * stride - (stride - c), 1.0f),
                             target = numbers(b * h * w * c, 1.0f);
    std::vector<float> gradient(b * h * w * c), alpha_gradient(b * h * w);
    const bool covered = chance(0.5);
    const std::vector<float> alpha = numbers(b * h * w, 0.5f), target_alpha = numbers(b * h * w, 0.5f);
    kg4d_image_pair pair = {b,
                            h,
                            w,
                            c,
                            stride,
                            prediction.data(),
                            target.data(),
                            covered ? alpha.data() : nullptr,
                            covered ? target_alpha.data() : nullptr,
                            1.0f,
                            number(1.0f),
                            number(1.0f),
                            number(1.0f),
                            static_cast<int32_t>(whole(-1, 3))};
    double errors[3];
    expect(kg4d_image_loss(&pair, errors, chance(0.8) ? gradient.data() : nullptr,
                           chance(0.8) ? alpha_gradient.data() : nullptr) == KG4D_OK,
           "image_loss refuses");
    pair.alpha = alpha.data(), pair.target_alpha = nullptr;
    expect(kg4d_image_loss(&pair, errors, nullptr, nullptr) == KG4D_BAD_ARGUMENT, "half a pair of mattes accepted");
}

void project_subset_once() {
    Scene s;
    const kg4d_scene& in = s.scene;
    const int64_t rows = whole(0, 6), columns = whole(0, 40);
    std::vector<int64_t> ids(rows * columns), row_frames(rows, 0);
    for (int64_t& id : ids) id = chance(0.01) ? whole(INT64_MIN, INT64_MAX) : whole(-1, in.gaussians - 1);
    if (chance(0.1) && rows > 0) row_frames[0] = whole(-1, 1);
    const kg4d_subset subset = {1,          in.gaussians,      rows,      columns,        in.width,    in.height,
                                in.means,   in.quats,          in.scales, in.covariances, in.viewmats, in.Ks,
                                ids.data(), row_frames.data(), in.eps2d,  in.threads};
    std::vector<float> means2d(2 * rows * columns), covs(4 * rows * columns);
    const int status = kg4d_project_subset(&subset, means2d.data(), covs.data());
    std::vector<float> v_means(s.means.size()), v_quats(s.quats.size()), v_scales(s.scales.size()),
        v_covariances(s.covariances.size());
    const kg4d_subset_gradients gradients = {v_means.data(), v_quats.data(), v_scales.data(), v_covariances.data()};
    const int back = kg4d_project_subset_backward(&subset, chance(0.8) ? means2d.data() : nullptr,
                                                  chance(0.8) ? covs.data() : nullptr, &gradients);
    expect(status == back, "project_subset_backward does not follow project_subset");
}

void slice_once() {
    const int64_t n = chance(0.1) ? 0 : whole(1, chance(0.05) ? 3000 : 120), b = whole(0, 4);
    const std::vector<float> means = numbers(4 * n, 0.5f), left = numbers(4 * n, 1.0f), right = numbers(4 * n, 1.0f);
    const std::vector<float> scales = numbers(4 * n, 0.1f), opacities = numbers(n, 0.5f, 0.5f), at = numbers(b, 1.0f);
    const kg4d_spacetime in = {n,
                               b,
                               means.data(),
                               left.data(),
                               right.data(),
                               scales.data(),
                               opacities.data(),
                               at.data(),
                               chance(0.5) ? 0.004f : 0.0f,
                               static_cast<int32_t>(whole(-1, 4))};
    std::vector<float> s_means(3 * b * n), s_opacities(b * n), s_covariances(6 * n), s_velocities(3 * n);
    const kg4d_slices out = {s_means.data(), s_opacities.data(), s_covariances.data(), s_velocities.data()};
    expect(kg4d_slice(&in, &out) == KG4D_OK, "slice refuses");
    std::vector<float> v_means(4 * n), v_left(4 * n), v_right(4 * n), v_scales(4 * n), v_opacities(n);
    const kg4d_slice_gradients gradients = {chance(0.8) ? s_means.data() : nullptr,
                                            chance(0.8) ? s_opacities.data() : nullptr,
                                            chance(0.8) ? s_covariances.data() : nullptr,
                                            chance(0.8) ? s_velocities.data() : nullptr,
                                            v_means.data(),
                                            v_left.data(),
                                            v_right.data(),
                                            v_scales.data(),
                                            v_opacities.data()};
    expect(kg4d_slice_backward(&in, &gradients) == KG4D_OK, "slice_backward refuses");
}

// Sizes and pointers that make no sense must be refused before anything is read.
void hostile_once() {
    Scene s;
    kg4d_scene& in = s.scene;
    const int64_t sizes[] = {-1, 0, INT64_MIN, INT64_MAX, int64_t{1} << 32, int64_t{1} << 62};
    int64_t* const fields[] = {&in.gaussians, &in.cameras, &in.channels, &in.width, &in.height};
    *fields[whole(0, 4)] = sizes[whole(0, 5)];
    if (chance(0.2)) in.sh_degree = chance(0.5) ? -1 : 4;
    if (in.gaussians == 0) in.width = 0;
    float dummy[4];
    int32_t radius[4];
    const kg4d_images out = {dummy, dummy, nullptr, dummy, radius};
    kg4d_render_plan* plan = kg4d_render_plan_new();
    expect(kg4d_forward(plan, &in, &out) != KG4D_OK, "hostile sizes accepted");
    expect(kg4d_forward(nullptr, &in, &out) == KG4D_BAD_ARGUMENT, "null plan accepted");
    expect(kg4d_forward(plan, nullptr, nullptr) == KG4D_BAD_ARGUMENT, "null scene accepted");
    expect(kg4d_backward(plan, &in, nullptr) == KG4D_BAD_ARGUMENT, "null gradients accepted");
    int32_t pixel[2] = {0, 0};
    int64_t id;
    expect(kg4d_contributors(plan, 1, pixel, pixel, 1, 1, &id, dummy) == KG4D_BAD_PLAN, "empty plan accepted");
    expect(kg4d_contributors(plan, INT64_MAX, pixel, pixel, 1, 1, &id, dummy) == KG4D_BAD_ARGUMENT, "n accepted");
    kg4d_image_pair pair = {1, 1, 1, 1, 1, dummy, dummy, nullptr, nullptr, 1.0f, 1.0f, 1.0f, 1.0f, 1};
    int64_t* const image_fields[] = {&pair.images, &pair.height, &pair.width, &pair.channels, &pair.pixel_stride};
    *image_fields[whole(0, 4)] = sizes[whole(0, 5)];
    double errors[3];
    expect(kg4d_image_loss(&pair, errors, nullptr, nullptr) == KG4D_BAD_ARGUMENT, "hostile image sizes accepted");
    kg4d_render_plan_free(plan);
    const int64_t hostile = chance(0.5) ? int64_t{1} << 40 : -1;
    const bool gaussians = chance(0.5);
    const kg4d_spacetime spacetime = {
        gaussians ? hostile : 1, gaussians ? 1 : hostile, dummy, dummy, dummy, dummy, dummy, dummy, 0.0f, 1};
    const kg4d_slices slices = {dummy, dummy, dummy, dummy};
    expect(kg4d_slice(&spacetime, &slices) == KG4D_BAD_ARGUMENT, "hostile spacetime accepted");
    expect(kg4d_slice(nullptr, &slices) == KG4D_BAD_ARGUMENT, "null spacetime accepted");
    expect(kg4d_slice_backward(&spacetime, nullptr) == KG4D_BAD_ARGUMENT, "null gradients of slices accepted");
}

}  // namespace

int main(int argc, char** argv) {
    const int rounds = argc > 1 ? std::atoi(argv[1]) : 200;
    for (const char* isa : {"generic", "avx2", "avx512"}) {
        if (kg4d_use_isa(isa) != KG4D_OK) continue;
        for (int i = 0; i < rounds; ++i)
            render_once(), project_subset_once(), slice_once(), compare_once(), hostile_once();
        std::printf("%s: %d rounds\n", isa, rounds);
    }
}
