// run.h - shared by the parts of the harness: the clock, the memory, the random back-pressure, and the first fault of a
// run.
//
// The harness runs a Verilated kernel as a card would: the host's registers over AXI4-Lite, memory over AXI4, streams
// over AXI4-Stream. Rules are those of Arm IHI 0022 (AXI) and IHI 0051 (AXI4-Stream); register layout of AMD UG1399 and
// UG1393.
#pragma once

#include "settings.h"

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

namespace apf
{

// Not from the C++ library, so that a seed gives the same cycles with every library (xorshift64*).
class Random
{
  public:
    explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ull + 1) {}
    uint64_t next()
    {
        state_ ^= state_ >> 12;
        state_ ^= state_ << 25;
        state_ ^= state_ >> 27;
        return state_ * 0x2545F4914F6CDD1Dull;
    }
    bool percent(uint64_t chance) { return chance && next() % 100 < chance; }

  private:
    uint64_t state_;
};

// A bandwidth in bytes a cycle: `take` says whether a beat may move now.
class Throttle
{
  public:
    void tick(double rate, unsigned beat)
    {
        if (rate > 0 && credit_ < beat) credit_ += rate;
    }
    bool ready(double rate, unsigned beat) const { return rate <= 0 || credit_ >= beat; }
    void take(double rate, unsigned beat)
    {
        if (rate > 0) credit_ -= beat;
    }

  private:
    double credit_ = 0;
};

// A bank of memory: the ports that are connected to it share its bandwidth, in both directions, as with a DRAM.
struct Bank {
    unsigned beat = 1; // bytes of the widest port
    Throttle rate;
};

// One run: its cycle, whether and how it failed. Only the first fault is kept: later ones can follow from it.
struct Run {
    Settings settings;
    std::map<unsigned, Bank> banks; // those that the settings name
    Random random{1};
    uint64_t cycle = 0;    // of ap_clk, since the process began
    uint64_t begin = 0;    // cycle at which this run began
    uint64_t progress = 0; // cycle of the last handshake with memory or a stream
    std::string fault;

    bool failed() const { return !fault.empty(); }
    __attribute__((format(printf, 2, 3))) void fail(const char *format, ...)
    {
        if (failed()) return;
        char text[700];
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
        char when[64];
        snprintf(when, sizeof when, " (cycle %llu of the run)", (unsigned long long)(cycle - begin));
        fault = std::string(text) + when;
    }
    void moved() { progress = cycle; }
};

// The buffers of a run in the card's memory.
class Memory
{
  public:
    struct Range {
        uint64_t begin, end; // card addresses
    };

    Memory(uint8_t *data, uint64_t base) : data_(data), base_(base) {}
    void clear() { ranges_.clear(); }
    void add(uint64_t address, uint64_t size) { ranges_.push_back({address, address + size}); }

    // Whether a byte of a run's buffers is at `address`.
    bool holds(uint64_t address) { return find(address) != nullptr; }
    // Whether [address, address + size) lies in one buffer.
    bool covers(uint64_t address, unsigned size)
    {
        const Range *range = find(address);
        return range && address + size <= range->end;
    }
    uint8_t *at(uint64_t address) { return data_ + (address - base_); }

    // Copy the bytes of [address, address + size) that lie in buffers; the others read as poison. False: none lies in a
    // buffer.
    bool read(uint64_t address, uint8_t *out, unsigned size)
    {
        const Range *range = find(address);
        if (range && address + size <= range->end) {
            memcpy(out, at(address), size);
            return true;
        }
        bool any = false;
        for (unsigned i = 0; i < size; i++) {
            const bool held = holds(address + i);
            out[i] = held ? *at(address + i) : 0xA5;
            any = any || held;
        }
        return any;
    }

    std::string describe() const
    {
        std::string text;
        for (const Range &range : ranges_) {
            char one[64];
            snprintf(one, sizeof one, "%s0x%llx to 0x%llx", text.empty() ? "" : ", ", (unsigned long long)range.begin,
                     (unsigned long long)range.end);
            text += one;
        }
        return text.empty() ? "none" : text;
    }

  private:
    const Range *find(uint64_t address)
    {
        if (last_ < ranges_.size() && address >= ranges_[last_].begin && address < ranges_[last_].end)
            return &ranges_[last_];
        for (size_t i = 0; i < ranges_.size(); i++)
            if (address >= ranges_[i].begin && address < ranges_[i].end) {
                last_ = i;
                return &ranges_[i];
            }
        return nullptr;
    }

    uint8_t *data_;
    uint64_t base_;
    std::vector<Range> ranges_;
    size_t last_ = 0;
};

// Counters of one port in one run.
struct PortCounts {
    uint64_t read_bytes = 0, write_bytes = 0;
    uint64_t waits_for_memory = 0; // cycles in which the kernel waited for this port's memory or stream
    uint64_t waits_for_kernel = 0; // cycles in which memory or stream waited for the kernel
};

// Copy between bytes and a port of any width: Verilator's types store the lowest bits first.
template <class Port> void get_bytes(const Port &port, uint8_t *out, unsigned size)
{
    memcpy(out, &port, size < sizeof port ? size : sizeof port);
}
template <class Port> void put_bytes(Port &port, const uint8_t *bytes, unsigned size)
{
    memcpy(&port, bytes, size < sizeof port ? size : sizeof port);
}

} // namespace apf
