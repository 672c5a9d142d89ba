// What a user writes by hand around the Verilated kernel `scale`: a loop of clock edges, the least memory that works,
// no checks, no counters. Argument: the number of 32-bit elements. Prints the cycles, and the sum of the results.
#include "Vscale.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>
#include <verilated.h>

namespace
{

std::unique_ptr<Vscale> top;
std::vector<uint64_t> memory;
uint64_t cycles = 0;
uint64_t read_at = 0, write_at = 0;
unsigned read_left = 0, write_left = 0;
bool reading = false;

void tick()
{
    top->ap_clk = 0;
    top->eval();
    const bool ar = top->m_axi_gmem_ARVALID && top->m_axi_gmem_ARREADY;
    const bool aw = top->m_axi_gmem_AWVALID && top->m_axi_gmem_AWREADY;
    const bool w = top->m_axi_gmem_WVALID && top->m_axi_gmem_WREADY;
    const bool r = top->m_axi_gmem_RVALID && top->m_axi_gmem_RREADY;
    const bool b = top->m_axi_gmem_BVALID && top->m_axi_gmem_BREADY;
    bool answers = top->m_axi_gmem_BVALID && !b;
    if (w) {
        memory[write_at++] = top->m_axi_gmem_WDATA;
        answers = --write_left == 0;
    }
    if (aw) {
        write_at = top->m_axi_gmem_AWADDR / 8;
        write_left = top->m_axi_gmem_AWLEN + 1u;
    }
    if (r) read_left--, read_at++;
    if (ar) {
        read_at = top->m_axi_gmem_ARADDR / 8;
        read_left = top->m_axi_gmem_ARLEN + 1u;
    }
    const bool written = top->s_axi_control_AWVALID && top->s_axi_control_AWREADY;
    const bool asked = top->s_axi_control_ARVALID && top->s_axi_control_ARREADY;
    top->ap_clk = 1;
    top->eval();
    top->m_axi_gmem_ARREADY = read_left == 0;
    top->m_axi_gmem_AWREADY = write_left == 0;
    top->m_axi_gmem_WREADY = write_left != 0;
    top->m_axi_gmem_BVALID = answers;
    top->m_axi_gmem_RVALID = read_left != 0;
    top->m_axi_gmem_RLAST = read_left == 1;
    if (read_left) top->m_axi_gmem_RDATA = memory[read_at];
    if (written) top->s_axi_control_AWVALID = top->s_axi_control_WVALID = 0;
    if (asked) top->s_axi_control_ARVALID = 0;
    cycles++;
}

void write(unsigned address, uint32_t value)
{
    top->s_axi_control_AWADDR = address;
    top->s_axi_control_WDATA = value;
    top->s_axi_control_WSTRB = 15;
    top->s_axi_control_AWVALID = top->s_axi_control_WVALID = 1;
    do tick();
    while (!top->s_axi_control_BVALID);
    tick();
}

uint32_t read(unsigned address)
{
    top->s_axi_control_ARADDR = address;
    top->s_axi_control_ARVALID = 1;
    do tick();
    while (!top->s_axi_control_RVALID);
    const uint32_t value = top->s_axi_control_RDATA;
    tick();
    return value;
}

} // namespace

int main(int argc, char **argv)
{
    const uint64_t count = argc > 1 ? strtoull(argv[1], nullptr, 10) : 1024;
    top.reset(new Vscale);
    memory.resize(count + 8);
    for (uint64_t i = 0; i < count; i++) reinterpret_cast<uint32_t *>(memory.data())[i] = uint32_t(i);
    top->s_axi_control_BREADY = top->s_axi_control_RREADY = 1;
    top->ap_rst_n = 0;
    for (int i = 0; i < 32; i++) tick();
    top->ap_rst_n = 1;
    const uint64_t to = (count * 4 + 63) / 64 * 64;
    memory.resize(2 * to / 8 + 8);
    const uint64_t values[] = {0, to, count, 3, 7, 5}; // src, dst, count, a, b; dtype 5 is int32
    const unsigned offsets[] = {0x10, 0x1c, 0x28, 0x34, 0x40, 0x4c};
    for (int i = 0; i < 6; i++) {
        write(offsets[i], uint32_t(values[i]));
        if (i < 5) write(offsets[i] + 4, uint32_t(values[i] >> 32));
    }
    write(0, 1);
    while (!(read(0) & 2)) continue;
    uint32_t sum = 0;
    for (uint64_t i = 0; i < count; i++) sum += reinterpret_cast<uint32_t *>(&memory[to / 8])[i];
    printf("%llu %u\n", (unsigned long long)cycles, sum);
    top.reset(); // before Verilator's own state goes
    return 0;
}
