// Moves a 4x4 pixel block between channels-last images and one vector per channel (lane = 4 row + column).
#pragma once

#include "simd/lanes.h"

namespace KG4D_ISA {

// The part of a block that lies inside the image.
struct BlockRegion {
    int64_t offset;  // of its first pixel, in pixels
    int64_t image_width;
    int rows, columns;  // 1 to 4
    bool whole() const { return rows == 4 && columns == 4; }
};

KG4D_INLINE void load_partial_block(const float* image, BlockRegion at, int64_t channels, vf* out) {
    for (int64_t k = 0; k < channels; ++k) {
        alignas(64) float lanes[kLanes] = {};
        for (int r = 0; r < at.rows; ++r) {
            for (int c = 0; c < at.columns; ++c) {
                lanes[4 * r + c] = image[(at.offset + r * at.image_width + c) * channels + k];
            }
        }
        out[k] = load(lanes);
    }
}

KG4D_INLINE void store_partial_block(float* image, BlockRegion at, int64_t channels, const vf* values) {
    for (int64_t k = 0; k < channels; ++k) {
        alignas(64) float lanes[kLanes];
        store(lanes, values[k]);
        for (int r = 0; r < at.rows; ++r) {
            for (int c = 0; c < at.columns; ++c) {
                image[(at.offset + r * at.image_width + c) * channels + k] = lanes[4 * r + c];
            }
        }
    }
}

KG4D_INLINE void prefetch_to_write(const float* image, BlockRegion at, int64_t channels) {
    for (int r = 0; r < at.rows; ++r) {
        const float* row = image + (at.offset + r * at.image_width) * channels;
        for (int64_t k = 0; k < at.columns * channels; k += 16) prefetch_to_write(row + k);
    }
}
KG4D_INLINE void prefetch(const float* image, BlockRegion at, int64_t channels) {
    for (int r = 0; r < at.rows; ++r) {
        const float* row = image + (at.offset + r * at.image_width) * channels;
        for (int64_t k = 0; k < at.columns * channels; k += 16) prefetch(row + k);
    }
}

// Four channels at a time by 4x4 transposes; the last group overlaps the one before. Three channels are read as four
// with the last pixel taken one float early, so that nothing outside the block's rows is touched.
KG4D_INLINE void load_block(const float* image, BlockRegion at, int64_t channels, vf* out) {
    const int64_t row = at.image_width * channels;
    const float* p = image + at.offset * channels;
    if (!at.whole() || channels == 2) {
        load_partial_block(image, at, channels, out);
    } else if (channels == 1) {
        out[0] = load_rows(p, row);
    } else if (channels == 3) {
        vf a = load_rows(p, row), b = load_rows(p + 3, row), c = load_rows(p + 6, row);
        vf d = rotate4_down(load_rows(p + 8, row));
        transpose4(a, b, c, d);
        out[0] = a, out[1] = b, out[2] = c;
    } else {
        for (int64_t k = 0; k < channels; k += 4) {
            const int64_t first = k + 4 <= channels ? k : channels - 4;
            const float* q = p + first;
            vf a = load_rows(q, row), b = load_rows(q + channels, row);
            vf c = load_rows(q + 2 * channels, row), d = load_rows(q + 3 * channels, row);
            transpose4(a, b, c, d);
            out[first] = a, out[first + 1] = b, out[first + 2] = c, out[first + 3] = d;
        }
    }
}

KG4D_INLINE void store_block(float* image, BlockRegion at, int64_t channels, const vf* values) {
    const int64_t row = at.image_width * channels;
    float* p = image + at.offset * channels;
    if (!at.whole() || channels == 2) {
        store_partial_block(image, at, channels, values);
    } else if (channels == 1) {
        store_rows(p, row, values[0]);
    } else if (channels == 3) {  // each store spills one float into the next pixel, which then overwrites it
        vf a = values[0], b = values[1], c = values[2], d = values[2];
        transpose4(a, b, c, d);
        store_rows(p, row, a), store_rows(p + 3, row, b), store_rows(p + 6, row, c);
        a = rotate4_up(values[2]), b = values[0], c = values[1], d = values[2];  // pixel 2's last channel, then pixel 3
        transpose4(a, b, c, d);
        store_rows(p + 8, row, d);
    } else {
        for (int64_t k = 0; k < channels; k += 4) {
            const int64_t first = k + 4 <= channels ? k : channels - 4;
            float* q = p + first;
            vf a = values[first], b = values[first + 1], c = values[first + 2], d = values[first + 3];
            transpose4(a, b, c, d);
            store_rows(q, row, a), store_rows(q + channels, row, b);
            store_rows(q + 2 * channels, row, c), store_rows(q + 3 * channels, row, d);
        }
    }
}

}  // namespace KG4D_ISA
