// Scratch memory of threads, and parallel loops.

#ifndef RSTAR_JAX_NATIVE_WORK_H_
#define RSTAR_JAX_NATIVE_WORK_H_

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <new>
#include <thread>

#include "lanes.h"

namespace rstar {

// Memory that is reused by later calls; growing it loses its contents.
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::free(data_); }

  Words* get(int64_t vectors) {
    if (vectors > size_) {
      std::free(data_);
      size_ = 0;
      data_ = static_cast<Words*>(
          std::aligned_alloc(alignof(Words), vectors * sizeof(Words)));
      if (data_ == nullptr) throw std::bad_alloc();
      size_ = vectors;
    }
    return data_;
  }

 private:
  Words* data_ = nullptr;
  int64_t size_ = 0;
};

// Multiply-adds that one thread does before another has begun.
constexpr int64_t kWorthThreads = 400'000;

// Calls run(0) to run(count - 1), on this thread and on those of a pool.
//
// `cost` is about the multiply-adds of all; of few, this thread does all.
// A free thread takes the next index. This thread never waits for the pool to
// start: tasks that start late find nothing left to do.
template <typename Pool, typename Run>
void parallel(Pool& pool, int64_t count, int64_t cost, const Run& run) {
  if (cost < kWorthThreads) {
    for (int64_t i = 0; i < count; ++i) run(i);
    return;
  }
  struct Progress {
    std::atomic<int64_t> next{0}, done{0};
  };
  auto progress = std::make_shared<Progress>();
  auto work = [progress, count, &run]() {
    // `run` lives until all indices are done, and is not used after that.
    for (int64_t i; (i = progress->next.fetch_add(1)) < count;) {
      run(i);
      progress->done.fetch_add(1, std::memory_order_release);
    }
  };
  int64_t threads = std::min<int64_t>(pool.num_threads(), count);
  for (int64_t t = 1; t < threads; ++t) pool.Schedule(decltype(work)(work));
  work();
  for (int tries = 0; progress->done.load(std::memory_order_acquire) < count;
       ++tries) {
#if defined(__x86_64__)
    _mm_pause();
#endif
    // Where other programs want the cores, waiting must not take them.
    if (tries > 1200)
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    else if (tries > 1000)
      std::this_thread::yield();
  }
}

}  // namespace rstar

#endif  // RSTAR_JAX_NATIVE_WORK_H_
