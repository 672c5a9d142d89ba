// main.cpp - a simulated card with one kernel: a process that the driver starts and sends requests to.
//
// Descriptors: 3 is the driver's socket, 4 is the card's memory, 5 is the file that receives standard output. A request
// is one packet of lines (see `parse`). The answer is one packet: "ok", "error" or "cancelled", a space, and a JSON
// object. The process ends when the socket closes.
#include "axi_lite.h"
#include "axi_memory.h"
#include "axi_stream.h"
#include "design_log.h"
#include "kernel.h"

#include <cinttypes>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <poll.h>
#include <string>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <tuple>
#include <unistd.h>
#include <verilated.h>
#if VM_TRACE_FST
#include <verilated_fst_c.h>
using Waveforms = VerilatedFstC;
#elif VM_TRACE
#include <verilated_vcd_c.h>
using Waveforms = VerilatedVcdC;
#endif
#if VM_COVERAGE
#include <verilated_cov.h>
#endif

namespace
{

constexpr int SOCKET = 3, ARENA = 4;
constexpr uint64_t BASE = 0x10000000; // card address of the memory's first byte; page 0 is used for control
constexpr uint64_t LOOK = 1024;       // cycles between two checks for a request to cancel
constexpr uint64_t PERIOD = 10000;    // period of ap_clk, in the trace's time unit

apf::Run run;
std::string finished; // where the design called $finish or $stop

} // namespace

// $finish and $stop end the run, not the process (see Verilator's VL_USER_FINISH).
void vl_finish(const char *file, int line, const char *)
{
    finished = std::string("$finish at ") + file + ":" + std::to_string(line);
}
void vl_stop(const char *file, int line, const char *)
{
    finished = std::string("$stop at ") + file + ":" + std::to_string(line);
}
void vl_fatal(const char *file, int line, const char *, const char *message)
{
    finished =
        std::string(message ? message : "fatal error") + " at " + (file ? file : "") + ":" + std::to_string(line);
}

namespace
{

struct Argument {
    enum Kind { Scalar32, Scalar64, Bytes, Buffer, Source, Sink } kind;
    uint64_t where, value, size;
    std::vector<uint32_t> words; // of a struct
};

class Card
{
  public:
    Card(uint8_t *arena, VerilatedContext &context)
        : context_(context), top_(new Top(&context)), control_(Control{top_.get()}, run), arena_(arena),
          memory_(arena, BASE), masters_(make_masters(top_.get(), run, memory_)),
          sources_(make_sources(top_.get(), run, memory_)), sinks_(make_sinks(top_.get(), run, memory_))
    {
#if VM_TRACE
        if (!run.settings.trace.empty()) {
            trace_.reset(new Waveforms);
            top_->trace(trace_.get(), 99);
            trace_->open(run.settings.trace.c_str());
        }
#endif
        reset();
    }

    ~Card()
    {
#if VM_TRACE
        if (trace_) trace_->close();
#endif
        top_->final();
#if VM_COVERAGE
        if (!run.settings.coverage.empty()) VerilatedCov::write(run.settings.coverage.c_str());
#endif
    }

    // Run the kernel once. Result: "ok", "error" or "cancelled".
    const char *execute(const std::vector<Argument> &arguments)
    {
        run.fault.clear();
        run.begin = run.progress = run.cycle;
        counters([](auto &port) { port.reset(); });
        cancelled_ = false;
        finished.clear();
        memory_.clear();
        for (const Argument &argument : arguments)
            if (argument.kind >= Argument::Buffer) memory_.add(argument.value, argument.size);
        if (has_control)
            through_registers(arguments);
        else
            freely(arguments);
        if (cancelled_) {
            reset();
            return "cancelled";
        }
#if VM_TRACE
        if (trace_) trace_->flush(); // the file can be read between two runs
#endif
        output_ = apf::printed();
        if (!run.failed() && !finished.empty()) {
            const std::string said = apf::last_lines(output_);
            run.fail("the design ended itself: %s%s%s", finished.c_str(),
                     said.empty() ? "" : "; it printed: ", said.c_str());
        }
        if (!run.failed()) check_end();
        if (!run.failed()) return "ok";
        reset();
        return "error";
    }

    // Whether each port that a bank names is there; if not, says which are.
    bool has_ports_of_banks()
    {
        std::string ports;
        std::apply([&](auto &...port) { ((ports += (ports.empty() ? "" : ", ") + std::string(port.name())), ...); },
                   masters_);
        for (const auto &bank : run.settings.banks) {
            if ((", " + ports + ",").find(", " + bank.first + ",") != std::string::npos) continue;
            fprintf(stderr, "rtl.banks: no memory port is called %s; expected one of %s\n", bank.first.c_str(),
                    ports.empty() ? "none" : ports.c_str());
            return false;
        }
        return true;
    }

    // What the design printed in the last run.
    const std::string &output() const { return output_; }

    std::string report()
    {
        std::string ports;
        counters([&](auto &port) {
            const apf::PortCounts &counts = port.counts();
            char text[300];
            snprintf(text, sizeof text,
                     "%s\"%s\":{\"read\":%" PRIu64 ",\"written\":%" PRIu64 ",\"waits_for_memory\":%" PRIu64
                     ",\"waits_for_kernel\":%" PRIu64 "}",
                     ports.empty() ? "" : ",", port.name(), counts.read_bytes, counts.write_bytes,
                     counts.waits_for_memory, counts.waits_for_kernel);
            ports += text;
        });
        return "\"clock\":\"" + apf::escaped(run.settings.clock) +
               "\",\"cycles\":" + std::to_string(run.cycle - run.begin) + ",\"ports\":{" + ports + "}";
    }

  private:
    template <class F> void counters(F f)
    {
        std::apply([&](auto &...port) { (f(port), ...); }, masters_);
        std::apply([&](auto &...port) { (f(port), ...); }, sources_);
        std::apply([&](auto &...port) { (f(port), ...); }, sinks_);
    }

    bool going()
    {
        if (run.failed() || !finished.empty() || cancelled_) return false;
        const uint64_t cycles = run.cycle - run.begin;
        if (run.settings.max_cycles && cycles > run.settings.max_cycles)
            run.fail("the run takes more than max_cycles = %" PRIu64 "; %s", run.settings.max_cycles,
                     waiting().c_str());
        else if (run.settings.hang_cycles && run.cycle - run.progress > run.settings.hang_cycles)
            run.fail("nothing moved for hang_cycles = %" PRIu64 "; %s", run.settings.hang_cycles, waiting().c_str());
        if (run.cycle % (LOOK * LOOK) == 0 && driver_gone()) exit(0);
        if (run.cycle % LOOK == 0 && __atomic_load_n(reinterpret_cast<uint32_t *>(arena_), __ATOMIC_RELAXED))
            cancelled_ = true;
        return !run.failed();
    }

    // No process can receive an answer: the driver's process has died.
    static bool driver_gone()
    {
        pollfd driver{SOCKET, 0, 0};
        return poll(&driver, 1, 0) > 0 && driver.revents & POLLHUP;
    }

    std::string waiting()
    {
        std::string text;
        counters([&](auto &port) {
            const std::string one = port.waiting();
            if (!one.empty()) text += (text.empty() ? "" : "; ") + one;
        });
        if (control_.busy() && text.empty()) text = control_.waiting();
        return text.empty() ? "the kernel waits for nothing outside: look at its own state" : text;
    }

    void eval(uint64_t at)
    {
        context_.time(at);
        top_->eval();
#if VM_TRACE
        const uint64_t from = run.settings.trace_from, cycles = run.settings.trace_cycles;
        if (trace_ && run.cycle >= from && (!cycles || run.cycle < from + cycles)) trace_->dump(at);
#endif
    }

    // Toggle the second clock up to and including time `until`.
    void second_clock(uint64_t until)
    {
        if constexpr (has_clock2) {
            const uint64_t half = PERIOD * 50 / (run.settings.clock2_percent ? run.settings.clock2_percent : 100);
            while (clock2_next_ <= until) {
                set_clock2(*top_, clock2_ = !clock2_);
                eval(clock2_next_);
                clock2_next_ += half;
            }
        }
    }

    // One cycle of ap_clk: settle, sample, clock edge, drive.
    void tick()
    {
        const uint64_t begin = run.cycle * PERIOD;
        second_clock(begin + PERIOD / 2 - 1);
        set_clock(*top_, false);
        eval(begin + PERIOD / 2);
        if (!in_reset_) {
            if (has_control) control_.sample();
            counters([](auto &port) { port.sample(); });
        }
        second_clock(begin + PERIOD - 1);
        run.cycle++;
        set_clock(*top_, true);
        eval(begin + PERIOD);
        if (!in_reset_) {
            if (has_control) control_.drive();
            for (auto &bank : run.banks) bank.second.rate.tick(run.settings.bandwidth, bank.second.beat);
            counters([](auto &port) { port.drive(); });
        }
    }

    void reset()
    {
        in_reset_ = true;
        if (has_control) control_.reset();
        counters([](auto &port) { port.reset(); });
        set_reset(*top_, true);
        for (int i = 0; i < 32; i++) tick();
        set_reset(*top_, false);
        for (int i = 0; i < 8; i++) tick();
        in_reset_ = false;
        auto_restart_ = false;
    }

    bool access()
    {
        while (control_.busy() && going()) tick();
        return going();
    }
    bool write(uint64_t address, uint32_t value)
    {
        control_.begin_write(address, value);
        return access();
    }
    bool read(uint64_t address)
    {
        control_.begin_read(address);
        return access();
    }

    void streams(const std::vector<Argument> &arguments)
    {
        for (const Argument &argument : arguments) {
            if (argument.kind != Argument::Source && argument.kind != Argument::Sink) continue;
            size_t index = 0;
            auto begin = [&](auto &port) {
                if (index++ == argument.where) port.begin(argument.value, argument.size);
            };
            if (argument.kind == Argument::Source)
                std::apply([&](auto &...port) { (begin(port), ...); }, sources_);
            else
                std::apply([&](auto &...port) { (begin(port), ...); }, sinks_);
        }
    }
    bool streams_done()
    {
        bool done = true;
        std::apply([&](auto &...port) { ((done = done && port.done()), ...); }, sources_);
        std::apply([&](auto &...port) { ((done = done && port.unfinished().empty()), ...); }, sinks_);
        return done;
    }

    // AMD UG1399, "S_AXILITE control register map": bit 0 start, 1 done (cleared by reading), 2 idle, 3 ready, 4
    // continue.
    void through_registers(const std::vector<Argument> &arguments)
    {
        for (const Argument &argument : arguments) {
            if (argument.kind >= Argument::Source) continue;
            if (argument.kind == Argument::Bytes) {
                for (size_t i = 0; i < argument.words.size(); i++)
                    if (!write(argument.where + 4 * i, argument.words[i])) return;
                continue;
            }
            if (!write(argument.where, uint32_t(argument.value))) return;
            if (argument.kind != Argument::Scalar32 && !write(argument.where + 4, uint32_t(argument.value >> 32)))
                return;
        }
        streams(arguments);
        if (control_protocol == 2) { // ap_ctrl_none with registers: streams alone start it
            while (!streams_done() && going()) tick();
            return;
        }
        if (!write(0, 1)) return;
        do {
            if (!read(0)) return;
        } while (!(control_.value() & 2));
        if (control_protocol == 1 && !write(0, 16)) return;
        if (control_protocol == 0) { // a run that follows would seem to be done before it has begun
            if (!read(0)) return;
            if (control_.value() & 2)
                return run.fail("%s: ap_done is still set after it was read; with ap_ctrl_hs reading clears it (is the "
                                "kernel's protocol ap_ctrl_chain?)",
                                Control::name);
        }
        // Data that the kernel sent before it was done may not have left a stream yet.
        for (int i = 0; i < 1000 && !streams_done() && going(); i++) tick();
    }

    void freely(const std::vector<Argument> &arguments)
    {
        streams(arguments);
        while (!streams_done() && going()) tick();
    }

    void check_end()
    {
        std::string text;
        counters([&](auto &port) {
            if (text.empty()) text = port.unfinished();
        });
        if (!text.empty()) run.fail("the kernel said that it is done, but %s", text.c_str());
    }

    std::string output_;
    VerilatedContext &context_;
    std::unique_ptr<Top> top_;
    apf::AxiLite<Control> control_;
    uint8_t *arena_;
    apf::Memory memory_;
    Masters masters_;
    Sources sources_;
    Sinks sinks_;
    bool in_reset_ = true, cancelled_ = false, auto_restart_ = false, clock2_ = false;
    uint64_t clock2_next_ = 0;
#if VM_TRACE
    std::unique_ptr<Waveforms> trace_;
#endif
};

// The bytes of a struct, two digits each, as words of registers; the last one is filled up with zeros.
std::vector<uint32_t> words_of(const char *digits)
{
    std::vector<uint32_t> words;
    unsigned byte = 0;
    for (size_t i = 0; sscanf(digits + 2 * i, "%2x", &byte) == 1; i++) {
        if (i % 4 == 0) words.push_back(0);
        words.back() |= uint32_t(byte) << 8 * (i % 4);
    }
    return words;
}

// "scalar32 REGISTER VALUE", "scalar64 REGISTER VALUE", "bytes REGISTER DIGITS", "buffer REGISTER ADDRESS SIZE",
// "source STREAM ADDRESS SIZE", "sink STREAM ADDRESS SIZE", a line each.
std::vector<Argument> parse(char *text)
{
    static const char *const kinds[] = {"scalar32", "scalar64", "bytes", "buffer", "source", "sink"};
    std::vector<Argument> arguments;
    char *rest = nullptr;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(nullptr, "\n", &rest)) {
        char kind[16];
        Argument argument{};
        int digits = 0;
        if (sscanf(line, "bytes %" SCNu64 " %n", &argument.where, &digits) == 1 && digits) {
            argument.kind = Argument::Bytes;
            argument.words = words_of(line + digits);
            arguments.push_back(argument);
            continue;
        }
        if (sscanf(line, "%15s %" SCNu64 " %" SCNu64 " %" SCNu64, kind, &argument.where, &argument.value,
                   &argument.size) < 3)
            continue;
        for (int i = 0; i < 6; i++)
            if (!strcmp(kind, kinds[i])) {
                argument.kind = Argument::Kind(i);
                arguments.push_back(argument);
            }
    }
    return arguments;
}

} // namespace

int main(int argc, char **argv)
{
    syscall(SYS_close_range, 6, ~0u, 0); // descriptors inherited by mistake
    signal(SIGINT, SIG_IGN);             // the terminal sends it to both processes; the driver decides
    for (int i = 1; i < argc; i++)
        if (!apf::set(run.settings, argv[i])) {
            fprintf(stderr, "rtl.%s is wrong: expected PORT:NUMBER, PORT:NUMBER\n",
                    argv[i]); // the driver checks the others
            return 2;
        }
    if (!apf::writable("trace", run.settings.trace) || !apf::writable("coverage", run.settings.coverage)) return 2;
    struct stat status;
    if (fstat(ARENA, &status)) return 2;
    void *arena = mmap(nullptr, size_t(status.st_size), PROT_READ | PROT_WRITE, MAP_SHARED, ARENA, 0);
    if (arena == MAP_FAILED) return 2;
    run.random = apf::Random(run.settings.seed);

    VerilatedContext context;
    context.randReset(2); // registers start with random bits from the seed, as in a card without resets
    context.randSeed(int(run.settings.seed & 0x7FFFFFFF) | 1);
    context.traceEverOn(!run.settings.trace.empty());
    Card card(static_cast<uint8_t *>(arena), context);
    if (!card.has_ports_of_banks()) return 2;
    send(SOCKET, "ready {}", 8, MSG_NOSIGNAL);

    static char packet[64 << 10];
    for (;;) {
        const ssize_t size = recv(SOCKET, packet, sizeof packet - 1, 0);
        if (size <= 0) break;
        packet[size] = '\0';
        const char *state = card.execute(parse(packet));
        std::string answer = std::string(state) + " {" + card.report();
        if (!run.fault.empty()) answer += ",\"error\":\"" + apf::escaped(run.fault) + "\"";
        const std::string &text = card.output();
        if (!text.empty()) answer += ",\"log\":\"" + apf::escaped(text) + "\"";
        answer += "}";
        if (send(SOCKET, answer.data(), answer.size(), MSG_NOSIGNAL) < 0) break;
    }
    return 0;
}
