// Threads that share out the items of a loop. The caller works too and waits only for items that others have begun,
// so a thread that the system has put aside costs at most one item.
#pragma once

#include <cstdint>

namespace kg4d {

using Task = void (*)(const void* context, int64_t item);

// Runs task(context, i) for all i in [0, items) on up to `threads` threads; returns when all are done. The first
// exception that an item throws is rethrown here. When the threads are busy with another caller's loop, or the call
// comes from inside a loop, the caller does everything itself.
void run_tasks(int threads, int64_t items, Task task, const void* context);

// The same for a callable that takes the item's index.
template <class F>
void parallel_for(int threads, int64_t items, const F& body) {
    run_tasks(threads, items, [](const void* f, int64_t i) { (*static_cast<const F*>(f))(i); }, &body);
}

}  // namespace kg4d
