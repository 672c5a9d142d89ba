// queue.h - a queue whose length is known without a division, for what is looked at in every cycle.
#pragma once

#include <cstddef>
#include <vector>

namespace apf
{

template <class T> class Queue
{
  public:
    bool empty() const { return count_ == 0; }
    size_t size() const { return count_; }
    void clear() { head_ = count_ = 0; }
    T &front() { return items_[head_]; }
    const T &front() const { return items_[head_]; }
    T &operator[](size_t index) { return items_[(head_ + index) & (items_.size() - 1)]; }
    void push_back(const T &item)
    {
        if (count_ == items_.size()) grow();
        (*this)[count_++] = item;
    }
    void pop_front()
    {
        head_ = (head_ + 1) & (items_.size() - 1);
        count_--;
    }
    // Let the item at `index` be the first; the others keep their order.
    void to_front(size_t index)
    {
        const T item = (*this)[index];
        for (; index; index--) (*this)[index] = (*this)[index - 1];
        front() = item;
    }

  private:
    void grow()
    {
        std::vector<T> larger(2 * items_.size());
        for (size_t i = 0; i < count_; i++) larger[i] = (*this)[i];
        items_.swap(larger);
        head_ = 0;
    }

    std::vector<T> items_ = std::vector<T>(16); // a power of two
    size_t head_ = 0, count_ = 0;
};

} // namespace apf
