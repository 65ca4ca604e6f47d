#include "thread_pool.h"

#include <algorithm>
#include <exception>

namespace longhand {

ThreadPool::ThreadPool(int helpers) {
    try {
        for (int i = 0; i < helpers; ++i) threads_.emplace_back([this] { work(); });
    } catch (const std::exception&) {
        // The system gives no more of them. Those that there are will do: the caller takes part, too.
    }
}

ThreadPool::~ThreadPool() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::run(std::size_t count, const std::function<void(std::size_t)>& task) {
    if (count == 0) return;
    Batch batch{&task, count};
    std::unique_lock<std::mutex> lock(mutex_);
    if (count > 1 && !threads_.empty()) {
        batches_.push_back(&batch);
        wake_.notify_all();
    }
    take_part(batch, lock);
    done_.wait(lock, [&] { return batch.running == 0; });
}

void ThreadPool::take_part(Batch& batch, std::unique_lock<std::mutex>& lock) {
    ++batch.running;
    while (batch.next < batch.count) {
        const std::size_t item = batch.next++;
        if (batch.next == batch.count) {
            batches_.erase(std::remove(batches_.begin(), batches_.end(), &batch), batches_.end());
        }
        lock.unlock();
        (*batch.task)(item);
        lock.lock();
    }
    if (--batch.running == 0) done_.notify_all();
}

void ThreadPool::work() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
        wake_.wait(lock, [this] { return stopping_ || !batches_.empty(); });
        if (stopping_) return;
        take_part(*batches_.front(), lock);
    }
}

}  // namespace longhand
