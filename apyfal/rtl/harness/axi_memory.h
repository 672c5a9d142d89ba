// axi_memory.h - the memory behind one m_axi_* port of a kernel, with latency, bandwidth and back-pressure, and the
// checks of the protocol. `Port` is generated for each port: its signals as functions, a signal that the kernel lacks
// is a constant.
#pragma once

#include "queue.h"
#include "run.h"

#include <algorithm>

namespace apf
{

template <class Port> class AxiMemory
{
  public:
    AxiMemory(Port port, Run &run, Memory &memory) : port_(port), run_(run), memory_(memory)
    {
        const auto named = run.settings.banks.find(Port::name);
        if (named == run.settings.banks.end()) return;
        bank_ = &run.banks[named->second];
        bank_->beat = std::max(bank_->beat, Port::bytes);
    }

    const char *name() const { return Port::name; }
    const PortCounts &counts() const { return counts_; }

    void reset()
    {
        reads_.clear();
        writes_.clear();
        answers_.clear();
        early_.clear();
        aw_ = ar_ = Held{};
        w_held_ = false;
        r_active_ = b_active_ = false;
        counts_ = PortCounts{};
        idle();
    }

    // Sample the settled signals before the rising clock edge.
    void sample()
    {
        if (port_.awvalid() || aw_.valid) address("AW", aw_, port_.awvalid(), port_.awready(), aw_request());
        if (port_.arvalid() || ar_.valid) address("AR", ar_, port_.arvalid(), port_.arready(), ar_request());
        if (port_.wvalid() || w_held_) write_data();
        if (b_active_ && port_.bready()) {
            b_active_ = false;
            answers_.pop_front();
            run_.moved();
        }
        if (r_active_) {
            if (port_.rready())
                read_moved();
            else
                counts_.waits_for_kernel++;
        }
        // If the kernel does nothing else at this port, it waits for read data or for a write response.
        const bool quiet = !port_.arvalid() && !port_.awvalid() && !port_.wvalid() && !r_active_ && !b_active_;
        const bool reads = !reads_.empty() && !r_active_ && port_.rready();
        if (reads || (quiet && !answers_.empty() && port_.bready())) counts_.waits_for_memory++;
    }

    // Drive the card's signals after the rising clock edge.
    void drive()
    {
        const Settings &settings = run_.settings;
        read_rate_.tick(settings.bandwidth, Port::bytes);
        write_rate_.tick(settings.bandwidth, Port::bytes);
        port_.arready() = reads_.size() < settings.outstanding && !held_back();
        port_.awready() = writes_.size() + answers_.size() < settings.outstanding && !held_back();
        const bool expected = !writes_.empty() || early_.size() < settings.early_data;
        port_.wready() = expected && writing().ready(settings.bandwidth, Port::bytes) && !held_back();
        if (!r_active_) next_read();
        if (!b_active_) next_answer();
        port_.rvalid() = r_active_;
        port_.bvalid() = b_active_;
    }

    // Empty if all bursts are complete; otherwise what is missing.
    std::string unfinished() const
    {
        char text[200] = "";
        if (!writes_.empty())
            snprintf(text, sizeof text, "%s: the burst of %u beats at 0x%llx has got %u", Port::name,
                     writes_.front().length, (unsigned long long)writes_.front().address, writes_.front().beat);
        else if (!early_.empty())
            snprintf(text, sizeof text, "%s: %zu beats of WDATA without an address (rtl.early_data = 0 accepts none)",
                     Port::name, early_.size());
        else if (!reads_.empty())
            snprintf(text, sizeof text, "%s: the burst at 0x%llx has got %u of %u beats", Port::name,
                     (unsigned long long)reads_.front().address, reads_.front().beat, reads_.front().length);
        return text;
    }

    // The handshake that waits, for the message about a hang; empty if none does.
    std::string waiting() const
    {
        std::string text;
        auto add = [&](bool waits, const char *valid, const char *ready) {
            if (waits)
                text += (text.empty() ? "" : ", ") + std::string(Port::name) + ": " + valid + " waits for " + ready;
        };
        add(port_.arvalid() && !port_.arready(), "ARVALID", "ARREADY");
        add(port_.awvalid() && !port_.awready(), "AWVALID", "AWREADY");
        add(port_.wvalid() && !port_.wready(), "WVALID", "WREADY");
        add(r_active_ && !port_.rready(), "RVALID", "RREADY of the kernel");
        add(b_active_ && !port_.bready(), "BVALID", "BREADY of the kernel");
        if (text.empty()) text = unfinished();
        return text;
    }

  private:
    static constexpr uint64_t LANES = Port::bytes == 64 ? ~0ull : (1ull << Port::bytes % 64) - 1;

    struct Request {
        uint64_t address = 0, id = 0;
        unsigned length = 0, size = 0, burst = 0;
        bool operator==(const Request &other) const
        {
            return address == other.address && id == other.id && length == other.length && size == other.size &&
                   burst == other.burst;
        }
    };
    struct Held { // an address that was offered and not yet accepted
        bool valid = false;
        Request request;
    };
    struct Burst : Request {
        unsigned beat = 0; // beats transferred
        uint64_t due = 0;  // first cycle in which it can be answered
    };
    struct Beat {
        uint8_t data[Port::bytes];
        uint64_t strobe;
        bool last;
    };

    Request aw_request() const
    {
        return {port_.awaddr(), port_.awid(), unsigned(port_.awlen()) + 1u, 1u << port_.awsize(), port_.awburst()};
    }
    Request ar_request() const
    {
        return {port_.araddr(), port_.arid(), unsigned(port_.arlen()) + 1u, 1u << port_.arsize(), port_.arburst()};
    }

    void idle()
    {
        port_.arready() = port_.awready() = port_.wready() = 0;
        port_.rvalid() = port_.bvalid() = 0;
        port_.rlast() = 0;
        port_.rresp() = port_.bresp() = 0;
    }

    Throttle &reading() { return bank_ ? bank_->rate : read_rate_; }
    Throttle &writing() { return bank_ ? bank_->rate : write_rate_; }
    bool held_back() { return run_.random.percent(run_.settings.stall); }

    // One of the two address channels.
    void address(const char *channel, Held &held, bool valid, bool ready, const Request &request)
    {
        if (held.valid && !valid)
            return run_.fail("%s: %sVALID was taken back before %sREADY, at address 0x%llx", Port::name, channel,
                             channel, (unsigned long long)held.request.address);
        if (held.valid && !(held.request == request))
            return run_.fail(
                "%s: %sADDR, %sLEN, %sSIZE, %sBURST or %sID changed while %sVALID waited: 0x%llx became 0x%llx",
                Port::name, channel, channel, channel, channel, channel, channel,
                (unsigned long long)held.request.address, (unsigned long long)request.address);
        held.valid = valid && !ready;
        held.request = request;
        if (held.valid) counts_.waits_for_memory++;
        if (!valid || !ready) return;
        run_.moved();
        check(channel, request);
        Burst burst;
        static_cast<Request &>(burst) = request;
        burst.due = run_.cycle + run_.settings.latency;
        if (channel[1] == 'R') {
            reads_.push_back(burst);
            return;
        }
        writes_.push_back(burst);
        while (!early_.empty() && !writes_.empty()) {
            Beat beat = early_.front();
            early_.pop_front();
            store(beat);
        }
    }

    void check(const char *channel, const Request &request)
    {
        const unsigned long long at = request.address;
        if (request.size > Port::bytes)
            return run_.fail("%s: %sSIZE says %u bytes a beat, the port has %u, at address 0x%llx", Port::name, channel,
                             request.size, Port::bytes, at);
        if (request.burst == 3)
            return run_.fail("%s: %sBURST is 3, which is reserved, at address 0x%llx", Port::name, channel, at);
        if (request.burst == 0 && request.length > 16)
            return run_.fail("%s: a FIXED burst of %u beats at 0x%llx; at most 16", Port::name, request.length, at);
        if (request.burst == 2 && request.length != 2 && request.length != 4 && request.length != 8 &&
            request.length != 16)
            return run_.fail("%s: a WRAP burst of %u beats at 0x%llx; expected 2, 4, 8 or 16", Port::name,
                             request.length, at);
        if (request.burst == 2 && request.address % request.size)
            return run_.fail("%s: a WRAP burst at 0x%llx, which is not a multiple of its beat size of %u bytes",
                             Port::name, at, request.size);
        if (request.burst == 1) {
            const uint64_t first = aligned_down(request.address, request.size);
            const uint64_t last = first + uint64_t(request.length) * request.size - 1;
            if (request.address >> 12 != last >> 12)
                return run_.fail("%s: the burst of %u beats of %u bytes at 0x%llx crosses a 4 KiB boundary", Port::name,
                                 request.length, request.size, at);
        }
    }

    // Sizes of beats are powers of two, which the compiler cannot know.
    static uint64_t aligned_down(uint64_t address, unsigned size) { return address & ~uint64_t(size - 1); }

    // Card address of one beat of a burst, aligned to its size from the second beat on (IHI 0022, A3.4.1).
    static uint64_t beat_address(const Request &request, unsigned beat)
    {
        if (request.burst == 0 || beat == 0) return request.address;
        const uint64_t aligned = aligned_down(request.address, request.size);
        uint64_t at = aligned + uint64_t(beat) * request.size;
        if (request.burst == 2) {
            const uint64_t whole = uint64_t(request.length) * request.size, low = aligned / whole * whole;
            if (at >= low + whole) at -= whole;
        }
        return at;
    }

    void write_data()
    {
        const bool valid = port_.wvalid(), ready = port_.wready();
        Beat beat;
        get_bytes(port_.wdata(), beat.data, Port::bytes);
        beat.strobe = port_.wstrb();
        beat.last = port_.wlast();
        if (w_held_) {
            if (!valid) return run_.fail("%s: WVALID was taken back before WREADY", Port::name);
            if (memcmp(beat.data, w_beat_.data, Port::bytes) || beat.strobe != w_beat_.strobe ||
                beat.last != w_beat_.last)
                return run_.fail("%s: WDATA, WSTRB or WLAST changed while WVALID waited", Port::name);
        }
        w_held_ = valid && !ready;
        if (w_held_) {
            w_beat_ = beat;
            counts_.waits_for_memory++;
        }
        if (!valid || !ready) return;
        run_.moved();
        writing().take(run_.settings.bandwidth, Port::bytes);
        if (writes_.empty())
            early_.push_back(beat);
        else
            store(beat);
    }

    void store(const Beat &beat)
    {
        Burst &burst = writes_.front();
        const uint64_t at = beat_address(burst, burst.beat);
        const unsigned size = burst.size;
        const uint64_t bus = at / Port::bytes * Port::bytes; // address of lane 0
        const unsigned low = unsigned(at - bus), high = unsigned(aligned_down(at, size) - bus) + size;
        if (low == 0 && high == Port::bytes && (beat.strobe & LANES) == LANES && memory_.covers(bus, Port::bytes)) {
            memcpy(memory_.at(bus), beat.data, Port::bytes);
            counts_.write_bytes += Port::bytes;
        } else if (!store_lanes(beat, at, low, high))
            return;
        burst.beat++;
        const bool last = burst.beat == burst.length;
        if (beat.last && !last)
            return run_.fail("%s: WLAST at beat %u of %u, in the burst at 0x%llx", Port::name, burst.beat, burst.length,
                             (unsigned long long)burst.address);
        if (last && !beat.last)
            return run_.fail("%s: no WLAST at the last of %u beats, in the burst at 0x%llx", Port::name, burst.length,
                             (unsigned long long)burst.address);
        if (!last) return;
        burst.due = run_.cycle + run_.settings.latency;
        answers_.push_back(burst);
        writes_.pop_front();
    }

    // A beat that is not all of the port's lanes, or is not all in one buffer. False: it is wrong.
    bool store_lanes(const Beat &beat, uint64_t at, unsigned low, unsigned high)
    {
        const uint64_t bus = at / Port::bytes * Port::bytes;
        for (unsigned lane = 0; lane < Port::bytes; lane++) {
            if (!(beat.strobe >> lane & 1)) continue;
            if (lane < low || lane >= high)
                run_.fail("%s: WSTRB has lane %u set, outside of the beat of %u bytes at 0x%llx", Port::name, lane,
                          writes_.front().size, (unsigned long long)at);
            else if (!memory_.holds(bus + lane))
                run_.fail("%s: write to 0x%llx, which no buffer of this run covers; buffers are %s", Port::name,
                          (unsigned long long)(bus + lane), memory_.describe().c_str());
            if (run_.failed()) return false;
            *memory_.at(bus + lane) = beat.data[lane];
            counts_.write_bytes++;
        }
        return true;
    }

    void read_moved()
    {
        Burst &burst = reads_.front();
        reading().take(run_.settings.bandwidth, Port::bytes);
        counts_.read_bytes += burst.size;
        run_.moved();
        r_active_ = false;
        if (++burst.beat == burst.length) reads_.pop_front();
    }

    // Offer the next beat of the oldest burst; with `reorder`, a burst of another ID may go first.
    void next_read()
    {
        if (reads_.empty() || held_back() || !reading().ready(run_.settings.bandwidth, Port::bytes)) return;
        if (run_.settings.reorder && reads_.front().beat == 0 && reads_.size() > 1) overtake();
        const Burst &burst = reads_.front();
        if (run_.cycle < burst.due) return;
        const uint64_t at = beat_address(burst, burst.beat), bus = at / Port::bytes * Port::bytes;
        uint8_t data[Port::bytes];
        if (!memory_.read(bus, data, Port::bytes))
            return run_.fail("%s: read of 0x%llx, which no buffer of this run covers; buffers are %s", Port::name,
                             (unsigned long long)at, memory_.describe().c_str());
        put_bytes(port_.rdata(), data, Port::bytes);
        port_.rid() = burst.id;
        port_.rlast() = burst.beat + 1 == burst.length;
        r_active_ = true;
    }

    void overtake()
    {
        const size_t other = run_.random.next() % reads_.size();
        for (size_t i = 0; i < other; i++)
            if (reads_[i].id == reads_[other].id) return; // bursts with the same ID keep their order
        reads_.to_front(other);
    }

    void next_answer()
    {
        if (answers_.empty() || run_.cycle < answers_.front().due || held_back()) return;
        port_.bid() = answers_.front().id;
        b_active_ = true;
    }

    mutable Port port_;
    Run &run_;
    Memory &memory_;
    Queue<Burst> reads_, writes_, answers_;
    Queue<Beat> early_;
    Held aw_, ar_;
    Beat w_beat_{};
    bool w_held_ = false, r_active_ = false, b_active_ = false;
    Throttle read_rate_, write_rate_;
    Bank *bank_ = nullptr; // shared with other ports; it belongs to the run
    PortCounts counts_;
};

} // namespace apf
