// Runs many short loops after one another and counts the items that were not done exactly once. Loops of few items and
// of many take turns: a thread that is late in one must not begin the next with what it knows of the first.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "thread_pool.h"

int main(int argc, char** argv) {
    const int rounds = argc > 1 ? std::atoi(argv[1]) : 200000, threads = argc > 2 ? std::atoi(argv[2]) : 2;
    int64_t wrong = 0;
    for (int round = 0; round < rounds; ++round) {
        std::vector<std::atomic<int>> done(round % 2 ? 2 + round % 3 : 40 + round % 7);
        for (auto& count : done) count = 0;
        kg4d::parallel_for(threads, static_cast<int64_t>(done.size()), [&](int64_t item) { ++done.at(item); });
        for (auto& count : done) wrong += count != 1;
    }
    std::printf("%lld\n", static_cast<long long>(wrong));
    return wrong != 0;
}
