#include "thread_pool.h"

#if !defined(_WIN32)
#include <pthread.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

namespace kg4d {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kSpin = std::chrono::microseconds(300);  // after work, a thread watches for more this long, then sleeps
constexpr int kMaxThreads = 256;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

class Pool {
public:
    void run(int threads, int64_t items, Task task, const void* context) {
        std::unique_lock<std::mutex> owner(owner_, std::defer_lock);
        if (inside_loop_ || !owner.try_lock()) {
            for (int64_t i = 0; i < items; ++i) task(context, i);
            return;
        }
        grow(std::min(threads, kMaxThreads) - 1);
        publish(threads - 1, items, task, context);
        inside_loop_ = true;
        work(generation_);
        inside_loop_ = false;
        wait_for_others(items);
        if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    }

private:
    // A loop in progress. Its fields change only between loops; `ticket_` says which loop they belong to.
    Task task_ = nullptr;
    const void* context_ = nullptr;
    std::atomic<int64_t> items_{0};
    std::atomic<int> helpers_{0};       // workers [0, helpers_) may join
    std::atomic<uint64_t> ticket_{0};   // generation << 40 | next item: one word, so a late worker cannot
    std::atomic<int64_t> finished_{0};  //   claim an item of a loop that it has not seen
    uint64_t generation_ = 0;           // of the latest loop; owner only
    std::exception_ptr error_;          // first one thrown; guarded by mutex_ while a loop runs

    std::mutex owner_;  // held by the caller whose loop runs
    std::mutex mutex_;
    std::condition_variable wake_, finished_signal_;
    std::atomic<int> asleep_{0};
    int workers_ = 0;
    static thread_local bool inside_loop_;

    static constexpr int kItemBits = 40;
    static constexpr uint64_t kItemMask = (uint64_t{1} << kItemBits) - 1;

    void grow(int workers) {
        for (; workers_ < workers; ++workers_) {
            std::thread([this, index = workers_, seen = generation_] { live(index, seen); }).detach();
        }
    }

    void publish(int helpers, int64_t items, Task task, const void* context) {
        // A late worker may hold a ticket of the loop before, which the new number of items would make good. So that
        // ticket is changed first, and whoever reads the new number sees it changed.
        ticket_.store(generation_ << kItemBits | kItemMask, std::memory_order_seq_cst);
        task_ = task;
        context_ = context;
        items_.store(items, std::memory_order_release);
        helpers_.store(helpers, std::memory_order_relaxed);
        finished_.store(0, std::memory_order_relaxed);
        ++generation_;
        ticket_.store(generation_ << kItemBits, std::memory_order_seq_cst);
        if (asleep_.load(std::memory_order_seq_cst) > 0) {
            std::lock_guard<std::mutex> lock(mutex_);
            wake_.notify_all();
        }
    }

    bool claim(uint64_t generation, int64_t& item) {
        uint64_t ticket = ticket_.load(std::memory_order_acquire);
        while (ticket >> kItemBits == (generation & (~uint64_t{0} >> kItemBits))) {
            item = static_cast<int64_t>(ticket & kItemMask);
            if (item >= items_.load(std::memory_order_acquire)) return false;
            if (ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) return true;
        }
        return false;
    }

    void work(uint64_t generation) {
        int64_t item;
        while (claim(generation, item)) {
            try {
                task_(context_, item);
            } catch (...) {
                std::lock_guard<std::mutex> lock(mutex_);
                if (!error_) error_ = std::current_exception();
            }
            if (finished_.fetch_add(1, std::memory_order_acq_rel) + 1 == items_.load(std::memory_order_relaxed)) {
                std::lock_guard<std::mutex> lock(mutex_);
                finished_signal_.notify_all();
            }
        }
    }

    void wait_for_others(int64_t items) {
        for (int i = 0; i < 4000 && finished_.load(std::memory_order_acquire) < items; ++i) pause();
        if (finished_.load(std::memory_order_acquire) >= items) return;
        std::unique_lock<std::mutex> lock(mutex_);
        finished_signal_.wait(lock, [&] { return finished_.load(std::memory_order_acquire) >= items; });
    }

    uint64_t current() const { return ticket_.load(std::memory_order_seq_cst) >> kItemBits; }

    bool spin(uint64_t seen) const {
        const auto end = Clock::now() + kSpin;
        do {
            for (int i = 0; i < 32; ++i) {
                if (current() != seen) return true;
                pause();
            }
            std::this_thread::yield();
        } while (Clock::now() < end);
        return false;
    }

    void live(int index, uint64_t seen) {
        inside_loop_ = true;
        for (;;) {
            if (!spin(seen)) {
                std::unique_lock<std::mutex> lock(mutex_);
                asleep_.fetch_add(1, std::memory_order_seq_cst);
                wake_.wait(lock, [&] { return current() != seen; });
                asleep_.fetch_sub(1, std::memory_order_seq_cst);
            }
            seen = current();
            if (index < helpers_.load(std::memory_order_relaxed)) work(seen);
        }
    }
};

thread_local bool Pool::inside_loop_ = false;

// Never destroyed: its threads live as long as the process. A forked child has none of them and starts a new pool.
std::atomic<Pool*> the_pool{nullptr};

Pool& pool() {
#if !defined(_WIN32)
    static const int registered = pthread_atfork(nullptr, nullptr, [] { the_pool.store(nullptr); });
    (void)registered;
#endif
    Pool* existing = the_pool.load(std::memory_order_acquire);
    if (existing != nullptr) return *existing;
    Pool* fresh = new Pool();
    if (the_pool.compare_exchange_strong(existing, fresh, std::memory_order_acq_rel)) return *fresh;
    delete fresh;
    return *existing;
}

}  // namespace

void run_tasks(int threads, int64_t items, Task task, const void* context) {
    if (threads <= 1 || items <= 1) {
        for (int64_t i = 0; i < items; ++i) task(context, i);
        return;
    }
    pool().run(threads, items, task, context);
}

}  // namespace kg4d
