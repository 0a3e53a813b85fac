// C ABI of the kg4d kernels: differentiable splatting of 3D Gaussians and a fused image loss, on the CPU.
//
// Arrays are dense, row-major float32 unless said otherwise. A pointer marked "or null" may be null. Functions return
// a kg4d_status; on anything but KG4D_OK the outputs hold no meaning. Calls may come from several threads at once
// as long as each works on its own render plan.
#ifndef KG4D_KERNELS_H
#define KG4D_KERNELS_H

#include <stdint.h>

#define KG4D_ABI_VERSION 7
#if defined(_WIN32)
#define KG4D_EXPORT __declspec(dllexport)
#else
#define KG4D_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    KG4D_OK = 0,
    KG4D_BAD_ARGUMENT = 1,   // a size or option out of range, or a null pointer where data is needed
    KG4D_NOT_FINITE = 2,     // NaN or Inf among the Gaussians, their features or the cameras
    KG4D_OUT_OF_MEMORY = 3,  // the work would need more memory than the machine has
    KG4D_BAD_PLAN = 4        // the render plan does not hold a forward pass of this scene
} kg4d_status;

// What is drawn, from where and by which rules.
typedef struct {
    int64_t gaussians, cameras, channels, width, height;
    const float* means;   // [gaussians, 3] world units
    const float* quats;   // [gaussians, 4] w x y z, any length > 0
    const float* scales;  // [gaussians, 3] world units
    const float*
        covariances;  // [gaussians, 6] xx xy xz yy yz zz in place of quats and scales, which may be null; or null
    const float* opacities;   // [gaussians]
    const float* features;    // [gaussians, channels], or [cameras, gaussians, channels]
    const float* harmonics;   // [gaussians, (sh_degree + 1)^2 - 1, 3], where sh_degree > 0: the features are colours,
                              // three and the same for all cameras, to which these add what depends on the direction
    const float* viewmats;    // [cameras, 4, 4] world to camera, OpenCV axes
    const float* Ks;          // [cameras, 3, 3] px
    const float* background;  // [cameras, channels] or null
    float eps2d, near_plane, far_plane, radius_clip;
    int32_t features_per_camera, antialiased, sh_degree, threads;
} kg4d_scene;

typedef struct {
    float* image;    // [cameras, height, width, channels]
    float* alpha;    // [cameras, height, width]
    float* depth;    // [cameras, height, width] or null: expected depth is not wanted
    float* means2d;  // [cameras, gaussians, 2] px; 0 where culled
    int32_t* radii;  // [cameras, gaussians, 2] px; 0 where culled
} kg4d_images;

typedef struct {
    // Gradients of the loss with respect to the outputs; null means zero.
    const float *image, *alpha, *depth, *means2d;
    // Gradients with respect to the inputs, all overwritten.
    float *means, *quats, *scales;
    float* covariances;  // where the scene has them, and then not quats and scales
    float* opacities;
    float* features;       // or null: not wanted, which saves most of the work when there are many channels
    float* harmonics;      // or null: not wanted
    float* viewmats;       // [cameras, 4, 4] or null
    float* means2d_total;  // [cameras, gaussians, 2] the gradient of means2d through the images and `means2d` above
    float* absgrad;        // [cameras, gaussians, 2] or null: sum over pixels of absolute gradients of means2d
} kg4d_gradients;

// Seconds of the stages of the last passes, and how much work there was. A visit is one Gaussian in one 4x4 block.
typedef struct {
    double projection, binning, forward, backward, projection_backward;
    int64_t pairs, forward_visits, backward_visits;
} kg4d_statistics;

typedef struct kg4d_render_plan kg4d_render_plan;  // what a forward pass leaves for backward and contributors

// The records that callers fill in. A caller that declares them again, in another language, compares their sizes.
typedef enum {
    KG4D_SCENE = 0,
    KG4D_IMAGES = 1,
    KG4D_GRADIENTS = 2,
    KG4D_STATISTICS = 3,
    KG4D_SUBSET = 4,
    KG4D_IMAGE_PAIR = 5,
    KG4D_SUBSET_GRADIENTS = 6,
    KG4D_SPACETIME = 7,
    KG4D_SLICES = 8,
    KG4D_SLICE_GRADIENTS = 9
} kg4d_struct;

KG4D_EXPORT int kg4d_abi_version(void);
KG4D_EXPORT int64_t kg4d_struct_size(int which);  // bytes of a kg4d_struct; -1 where there is none of that number
KG4D_EXPORT const char* kg4d_isa(void);           // instruction set in use: "avx512", "avx2" or "generic"
KG4D_EXPORT int kg4d_use_isa(const char* name);   // choose another one that this machine has
KG4D_EXPORT kg4d_render_plan* kg4d_render_plan_new(void);        // null when memory is exhausted
KG4D_EXPORT void kg4d_render_plan_free(kg4d_render_plan* plan);  // null is allowed
KG4D_EXPORT int kg4d_render_plan_statistics(const kg4d_render_plan* plan, kg4d_statistics* out);

KG4D_EXPORT int kg4d_forward(kg4d_render_plan* plan, const kg4d_scene* scene, const kg4d_images* out);
KG4D_EXPORT int kg4d_backward(kg4d_render_plan* plan, const kg4d_scene* scene, const kg4d_gradients* gradients);

// The k heaviest Gaussians at each of n pixels of the plan's images, heaviest first: ids (-1 for none) and blending
// weights. pixels holds (x, y) as integers; a pixel or camera outside has no contributors.
KG4D_EXPORT int kg4d_contributors(const kg4d_render_plan* plan, int64_t n, const int32_t* cameras,
                                  const int32_t* pixels, int64_t k, int32_t threads, int64_t* ids, float* weights);

// Gaussians given by index: row r lists `columns` of the Gaussians of frame row_frames[r], seen by that frame's camera.
typedef struct {
    int64_t frames, gaussians, rows, columns, width, height;
    const float* means;         // [frames, gaussians, 3] world units
    const float* quats;         // [frames, gaussians, 4] w x y z, any length > 0
    const float* scales;        // [frames, gaussians, 3] world units
    const float* covariances;   // [frames, gaussians, 6] in place of quats and scales, as in kg4d_scene; or null
    const float* viewmats;      // [frames, 4, 4]
    const float* Ks;            // [frames, 3, 3] px
    const int64_t* ids;         // [rows, columns]; negative is padding, for which any Gaussian may stand
    const int64_t* row_frames;  // [rows]
    float eps2d;
    int32_t threads;
} kg4d_subset;

// Their centres, px, and 2D covariances, px^2, [rows, columns, 2, 2]. Depths below 0.01 are taken as 0.01.
KG4D_EXPORT int kg4d_project_subset(const kg4d_subset* subset, float* means2d, float* covs);

typedef struct {
    float *means, *quats, *scales;  // of the shapes of the inputs
    float* covariances;             // where the subset has them, and then not quats and scales
} kg4d_subset_gradients;

// Adds the gradients that flow back from both (or null) to `out`. Nothing flows to Gaussians nearer than 0.01.
KG4D_EXPORT int kg4d_project_subset_backward(const kg4d_subset* subset, const float* v_means2d, const float* v_covs,
                                             const kg4d_subset_gradients* out);

// Gaussians in space and time. With basis vectors x, y, z, t and the quaternion t + x i + y j + z k of a vector p, the
// rotation is p -> left p conj(right), both normalised; the covariance is that of independent axes with these scales.
typedef struct {
    int64_t gaussians, times;
    const float* means;      // [gaussians, 4] x y z in world units, t
    const float* left;       // [gaussians, 4] w x y z, any length > 0
    const float* right;      // [gaussians, 4] w x y z, any length > 0
    const float* scales;     // [gaussians, 4] along the local x y z t, > 0
    const float* opacities;  // [gaussians]
    const float* at;         // [times]
    float least_weight;      // temporal weights below this are taken as zero
    int32_t threads;
} kg4d_spacetime;

typedef struct {
    float* means;        // [times, gaussians, 3] conditional centres
    float* opacities;    // [times, gaussians] times the temporal weight exp(-(t - mean_t)^2 / (2 S_tt))
    float* covariances;  // [gaussians, 6] conditional, which do not depend on the time; xx xy xz yy yz zz
    float* velocities;   // [gaussians, 3] S_xt / S_tt
} kg4d_slices;

typedef struct {
    // Gradients of the loss with respect to the slices; null means zero.
    const float *means, *opacities, *covariances, *velocities;
    // Gradients with respect to the Gaussians, all overwritten.
    float *v_means, *v_left, *v_right, *v_scales, *v_opacities;
} kg4d_slice_gradients;

KG4D_EXPORT int kg4d_slice(const kg4d_spacetime* spacetime, const kg4d_slices* out);
KG4D_EXPORT int kg4d_slice_backward(const kg4d_spacetime* spacetime, const kg4d_slice_gradients* gradients);

// Images of the fused loss: [images, height, width, channels] with channels last. The floats of neighbouring pixels of
// `prediction` may lie further apart (pixel_stride >= channels), its rows are width * pixel_stride floats.
typedef struct {
    int64_t images, height, width, channels, pixel_stride;
    const float *prediction, *target;
    const float *alpha, *target_alpha;  // coverage [images, height, width], or both null
    float data_range, l1_weight, ssim_weight, alpha_weight;
    int32_t threads;
} kg4d_image_pair;

// errors: mean |prediction - target|, mean SSIM (11 x 11 Gaussian window, sigma 1.5, mirrored borders) and mean
// |alpha - target_alpha|. gradient [images, height, width, channels] and alpha_gradient [images, height, width], or
// null, get the derivatives of l1_weight * errors[0] + ssim_weight * (1 - errors[1]) + alpha_weight * errors[2].
KG4D_EXPORT int kg4d_image_loss(const kg4d_image_pair* pair, double* errors, float* gradient, float* alpha_gradient);

#ifdef __cplusplus
}
#endif
#endif
