// Memory that grows and is reused: contents are lost when it grows, freed at the end.
#pragma once

#include <cstddef>
#include <cstring>

namespace kg4d {

// 64-byte aligned memory; throws std::bad_alloc also when more is asked for than the machine has in all.
void* allocate(size_t bytes);
void release(void* memory);

// `count` floats that belong to the calling thread and are reused by its next call.
float* thread_scratch(size_t count);

// The members are always inlined: a copy compiled for one instruction set must not be linked into code for another.
#define KG4D_ALWAYS_INLINE __attribute__((always_inline))

template <class T>
class Buffer {
public:
    Buffer() = default;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { release(data_); }

    // At least `count` elements plus one vector of slack, so that whole vectors may be read and written at the end.
    KG4D_ALWAYS_INLINE T* reserve(size_t count) { return grow(count, 0); }

    // The same, but the first `kept` elements survive.
    KG4D_ALWAYS_INLINE T* grow(size_t count, size_t kept) {
        if (count > capacity_ || data_ == nullptr) {
            const size_t capacity = count + count / 4;
            T* fresh = static_cast<T*>(allocate(capacity * sizeof(T) + kSlack));
            if (kept > 0) std::memcpy(fresh, data_, kept * sizeof(T));
            release(data_);
            data_ = fresh;
            capacity_ = capacity;
        }
        return data_;
    }
    KG4D_ALWAYS_INLINE size_t capacity() const { return capacity_; }
    KG4D_ALWAYS_INLINE T* data() { return data_; }
    KG4D_ALWAYS_INLINE const T* data() const { return data_; }
    KG4D_ALWAYS_INLINE T& operator[](size_t i) { return data_[i]; }
    KG4D_ALWAYS_INLINE const T& operator[](size_t i) const { return data_[i]; }

private:
    static constexpr size_t kSlack = 64;
    T* data_ = nullptr;
    size_t capacity_ = 0;
};

}  // namespace kg4d
