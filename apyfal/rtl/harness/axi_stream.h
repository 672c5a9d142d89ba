// axi_stream.h - both ends of AXI4-Stream: an input that reads from a buffer, and an output that writes to a buffer.
#pragma once

#include "run.h"

namespace apf
{

// s_axis_*: the harness sends.
template <class Port> class StreamInput
{
  public:
    StreamInput(Port port, Run &run, Memory &memory) : port_(port), run_(run), memory_(memory) {}
    const char *name() const { return Port::name; }
    const PortCounts &counts() const { return counts_; }

    void reset()
    {
        address_ = end_ = 0;
        active_ = false;
        counts_ = PortCounts{};
        port_.tvalid() = 0;
    }
    void begin(uint64_t address, uint64_t size)
    {
        address_ = address;
        end_ = address + size;
    }
    bool done() const { return !active_ && address_ == end_; }

    void sample()
    {
        if (!active_) return;
        if (!port_.tready()) {
            counts_.waits_for_kernel++;
            return;
        }
        active_ = false;
        address_ += offered_;
        counts_.read_bytes += offered_;
        rate_.take(run_.settings.bandwidth, Port::bytes);
        run_.moved();
    }
    void drive()
    {
        rate_.tick(run_.settings.bandwidth, Port::bytes);
        if (!active_ && address_ != end_ && rate_.ready(run_.settings.bandwidth, Port::bytes) &&
            !run_.random.percent(run_.settings.stall))
            offer();
        port_.tvalid() = active_;
    }
    std::string waiting() const
    {
        return active_ && !port_.tready() ? std::string(Port::name) + ": TVALID waits for TREADY of the kernel" : "";
    }
    std::string unfinished() const
    {
        return done() ? "" : std::string(Port::name) + ": the kernel did not take all of its input";
    }

  private:
    void offer()
    {
        const uint64_t left = end_ - address_;
        offered_ = left < Port::bytes ? unsigned(left) : Port::bytes;
        uint8_t data[Port::bytes] = {};
        memcpy(data, memory_.at(address_), offered_);
        put_bytes(port_.tdata(), data, Port::bytes);
        const uint64_t keep = offered_ == 64 ? ~0ull : (1ull << offered_) - 1;
        port_.tkeep() = keep;
        port_.tstrb() = keep;
        port_.tlast() = left <= Port::bytes;
        active_ = true;
    }

    mutable Port port_;
    Run &run_;
    Memory &memory_;
    uint64_t address_ = 0, end_ = 0;
    unsigned offered_ = 0;
    bool active_ = false;
    Throttle rate_;
    PortCounts counts_;
};

// m_axis_*: the harness receives.
template <class Port> class StreamOutput
{
  public:
    StreamOutput(Port port, Run &run, Memory &memory) : port_(port), run_(run), memory_(memory) {}
    const char *name() const { return Port::name; }
    const PortCounts &counts() const { return counts_; }

    void reset()
    {
        begin_ = address_ = end_ = 0;
        held_ = last_ = false;
        counts_ = PortCounts{};
        port_.tready() = 0;
    }
    void begin(uint64_t address, uint64_t size)
    {
        begin_ = address_ = address;
        end_ = address + size;
        last_ = false;
    }
    bool done() const { return last_ || (!Port::has_last && address_ == end_); }

    void sample()
    {
        const bool valid = port_.tvalid(), ready = port_.tready();
        if (!valid && !held_) return;
        uint8_t data[Port::bytes];
        get_bytes(port_.tdata(), data, Port::bytes);
        const uint64_t keep = Port::has_keep ? uint64_t(port_.tkeep()) : ~0ull;
        const bool last = port_.tlast();
        if (held_) {
            if (!valid) return run_.fail("%s: TVALID was taken back before TREADY", Port::name);
            if (memcmp(data, data_, Port::bytes) || keep != keep_ || last != held_last_)
                return run_.fail("%s: TDATA, TKEEP or TLAST changed while TVALID waited", Port::name);
        }
        held_ = valid && !ready;
        if (held_) {
            memcpy(data_, data, Port::bytes);
            keep_ = keep;
            held_last_ = last;
            counts_.waits_for_memory++;
        }
        if (!valid || !ready) return;
        run_.moved();
        rate_.take(run_.settings.bandwidth, Port::bytes);
        store(data, keep);
        if (!last || !Port::has_last || run_.failed()) return;
        last_ = true;
        if (address_ != end_)
            run_.fail("%s: TLAST after %llu of %llu bytes", Port::name, (unsigned long long)(address_ - begin_),
                      (unsigned long long)(end_ - begin_));
    }
    void drive()
    {
        rate_.tick(run_.settings.bandwidth, Port::bytes);
        port_.tready() = end_ != begin_ && !last_ && rate_.ready(run_.settings.bandwidth, Port::bytes) &&
                         !run_.random.percent(run_.settings.stall);
    }
    std::string waiting() const { return done() || begin_ == end_ ? "" : unfinished(); }
    std::string unfinished() const
    {
        if (begin_ == end_ || address_ == end_) return "";
        char text[160];
        snprintf(text, sizeof text, "%s: %llu of %llu bytes came", Port::name, (unsigned long long)(address_ - begin_),
                 (unsigned long long)(end_ - begin_));
        return text;
    }

  private:
    void store(const uint8_t *data, uint64_t keep)
    {
        bool ended = false;
        for (unsigned lane = 0; lane < Port::bytes; lane++) {
            if (!(keep >> lane & 1)) {
                ended = true;
                continue;
            }
            if (ended) return run_.fail("%s: TKEEP 0x%llx has a hole", Port::name, (unsigned long long)keep);
            if (address_ == end_)
                return run_.fail("%s: more than the %llu bytes of its output", Port::name,
                                 (unsigned long long)(end_ - begin_));
            *memory_.at(address_++) = data[lane];
            counts_.write_bytes++;
        }
    }

    mutable Port port_;
    Run &run_;
    Memory &memory_;
    uint64_t begin_ = 0, address_ = 0, end_ = 0;
    uint8_t data_[Port::bytes] = {};
    uint64_t keep_ = 0;
    bool held_ = false, held_last_ = false, last_ = false;
    Throttle rate_;
    PortCounts counts_;
};

} // namespace apf
