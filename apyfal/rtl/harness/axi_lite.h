// axi_lite.h - the host's side of s_axi_control: one register access at a time, and checks of the kernel's responses.
#pragma once

#include "run.h"

namespace apf
{

template <class Port> class AxiLite
{
  public:
    AxiLite(Port port, Run &run) : port_(port), run_(run) {}

    void reset()
    {
        port_.awvalid() = port_.wvalid() = port_.arvalid() = 0;
        port_.bready() = port_.rready() = 1;
        state_ = Idle;
    }

    void begin_write(uint64_t address, uint32_t value)
    {
        port_.awaddr() = address;
        port_.wdata() = value;
        port_.wstrb() = 0xF;
        port_.awvalid() = port_.wvalid() = 1;
        address_ = address;
        state_ = Writing;
    }
    void begin_read(uint64_t address)
    {
        port_.araddr() = address;
        port_.arvalid() = 1;
        address_ = address;
        state_ = Reading;
    }
    bool busy() const { return state_ != Idle; }
    uint32_t value() const { return value_; }

    void sample()
    {
        aw_done_ = port_.awvalid() && port_.awready();
        w_done_ = port_.wvalid() && port_.wready();
        ar_done_ = port_.arvalid() && port_.arready();
        if (port_.bvalid()) answered(state_ == Writing && !port_.awvalid() && !port_.wvalid(), "BVALID", port_.bresp());
        if (port_.rvalid() && state_ == Reading) value_ = uint32_t(port_.rdata());
        if (port_.rvalid()) answered(state_ == Reading && !port_.arvalid(), "RVALID", port_.rresp());
    }
    void drive()
    {
        if (aw_done_) port_.awvalid() = 0;
        if (w_done_) port_.wvalid() = 0;
        if (ar_done_) port_.arvalid() = 0;
    }
    std::string waiting() const
    {
        const char *what = port_.awvalid()     ? "AWVALID waits for AWREADY of the kernel"
                           : port_.wvalid()    ? "WVALID waits for WREADY of the kernel"
                           : port_.arvalid()   ? "ARVALID waits for ARREADY of the kernel"
                           : state_ == Writing ? "the kernel did not set BVALID"
                                               : "the kernel did not set RVALID";
        char text[160];
        snprintf(text, sizeof text, "%s: %s, at register 0x%llx", Port::name, what, (unsigned long long)address_);
        return text;
    }

  private:
    void answered(bool due, const char *signal, unsigned response)
    {
        if (!due) return run_.fail("%s: %s without a request", Port::name, signal);
        if (response)
            return run_.fail("%s: response %u (%s) to register 0x%llx", Port::name, response,
                             response == 2   ? "SLVERR"
                             : response == 3 ? "DECERR"
                                             : "EXOKAY",
                             (unsigned long long)address_);
        state_ = Idle;
    }

    enum State { Idle, Writing, Reading };
    mutable Port port_;
    Run &run_;
    State state_ = Idle;
    bool aw_done_ = false, w_done_ = false, ar_done_ = false;
    uint64_t address_ = 0;
    uint32_t value_ = 0;
};

} // namespace apf
