// Memory that grows and is reused: contents are lost when it grows, freed at the end.
#pragma once

#include <cstddef>

namespace kg4d {

// 64-byte aligned memory; throws std::bad_alloc also when more is asked for than the machine has in all.
void* allocate(size_t bytes);
void release(void* memory);

template <class T>
class Buffer {
public:
    Buffer() = default;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { release(data_); }

    // At least `count` elements plus one vector of slack, so that whole vectors may be read and written at the end.
    T* reserve(size_t count) {
        constexpr size_t slack = 64;
        if (count > capacity_ || data_ == nullptr) {
            release(data_);
            data_ = nullptr;
            capacity_ = 0;
            const size_t grown = count + count / 4;
            data_ = static_cast<T*>(allocate(grown * sizeof(T) + slack));
            capacity_ = grown;
        }
        return data_;
    }
    T* data() { return data_; }
    const T* data() const { return data_; }
    T& operator[](size_t i) { return data_[i]; }
    const T& operator[](size_t i) const { return data_[i]; }
    size_t bytes() const { return capacity_ * sizeof(T); }

private:
    T* data_ = nullptr;
    size_t capacity_ = 0;
};

}  // namespace kg4d
