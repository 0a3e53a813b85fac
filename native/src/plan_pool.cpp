#include "plan_pool.h"

#include <mutex>
#include <new>

namespace kg4d {
namespace {

constexpr int kWaiting = 4;
std::mutex mutex;
kg4d_render_plan* waiting[kWaiting] = {};  // guarded by the mutex

}  // namespace

kg4d_render_plan* take_plan() {
    {
        std::lock_guard<std::mutex> lock(mutex);
        for (kg4d_render_plan*& slot : waiting) {
            if (slot != nullptr) {
                kg4d_render_plan* plan = slot;
                slot = nullptr;
                plan->complete = false;
                return plan;
            }
        }
    }
    return new (std::nothrow) kg4d_render_plan();
}

void return_plan(kg4d_render_plan* plan) {
    {
        std::lock_guard<std::mutex> lock(mutex);
        for (kg4d_render_plan*& slot : waiting) {
            if (slot == nullptr) {
                slot = plan;
                return;
            }
        }
    }
    delete plan;
}

}  // namespace kg4d
