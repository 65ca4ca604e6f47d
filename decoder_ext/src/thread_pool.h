// Threads that share out the items of a batch.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace longhand {

class ThreadPool {
  public:
    // `helpers` threads besides the one that calls run().
    explicit ThreadPool(int helpers);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    // Calls task(0) .. task(count - 1), each once, in any order, and returns when all are done. `task` must
    // not throw. Several callers may run batches at a time.
    void run(std::size_t count, const std::function<void(std::size_t)>& task);

  private:
    struct Batch {
        const std::function<void(std::size_t)>* task;
        std::size_t count, next = 0, running = 0;
    };
    void work();
    // Does items of `batch` until none is left to begin. `lock` is held on entry and on return.
    void take_part(Batch& batch, std::unique_lock<std::mutex>& lock);

    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::vector<Batch*> batches_;  // those with items left to begin, oldest first
    bool stopping_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace longhand
