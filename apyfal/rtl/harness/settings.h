// settings.h - the settings of a simulated card, as the driver passes them on the command line.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <map>
#include <string>
#include <unistd.h>

namespace apf
{

// Settings of a simulated card; each is "name=value" on the command line, all numbers but `banks`, `trace` and
// `coverage`.
struct Settings {
    uint64_t latency = 40;                 // cycles from a memory request to its first answer
    double bandwidth = 0;                  // bytes a cycle, of a bank, or of a port and direction; 0: no limit
    std::map<std::string, unsigned> banks; // of memory ports; one that is not here has a bank for itself
    uint64_t outstanding = 16;             // requests that a port's memory accepts before it has answered the first
    uint64_t early_data = 16;              // beats of write data that a port's memory accepts before their address
    uint64_t stall = 0;               // percent of the cycles in which the card holds back a ready or a valid signal
    uint64_t reorder = 0;             // 1: answers to different IDs may overtake each other
    uint64_t seed = 1;                // of the random numbers for stall and reorder
    uint64_t max_cycles = 0;          // a run that takes longer is ended with an error; 0: no limit
    uint64_t hang_cycles = 1'000'000; // a run with no handshake for this many cycles is ended with an error
    uint64_t clock2_percent = 100;    // frequency of ap_clk_2, in percent of ap_clk's
    uint64_t trace_from = 0, trace_cycles = 0;
    std::string trace, coverage, clock; // `clock` is only reported: cycles have no duration here
};

// Take over "PORT:NUMBER, PORT:NUMBER". False: it has another form.
inline bool set_banks(Settings &settings, const std::string &text)
{
    size_t at = 0;
    while (at <= text.size()) {
        const size_t end = std::min(text.find(',', at), text.size());
        char port[64], behind;
        unsigned number;
        if (sscanf(text.substr(at, end - at).c_str(), " %63[A-Za-z0-9_] : %3u %c", port, &number, &behind) != 2)
            return false;
        settings.banks[port] = number;
        at = end + 1;
    }
    return true;
}

// Take over "name=value". False: there is no such setting.
inline bool set(Settings &settings, const char *text)
{
    const char *equals = strchr(text, '=');
    if (!equals) return false;
    const std::string name(text, size_t(equals - text)), value(equals + 1);
    if (name == "trace") return settings.trace = value, true;
    if (name == "coverage") return settings.coverage = value, true;
    if (name == "clock") return settings.clock = value, true;
    if (name == "banks") return set_banks(settings, value);
    if (name == "bandwidth") return settings.bandwidth = strtod(value.c_str(), nullptr), true;
    struct {
        const char *name;
        uint64_t *field;
    } const numbers[] = {
        {"latency", &settings.latency},
        {"outstanding", &settings.outstanding},
        {"early_data", &settings.early_data},
        {"stall", &settings.stall},
        {"reorder", &settings.reorder},
        {"seed", &settings.seed},
        {"max_cycles", &settings.max_cycles},
        {"hang_cycles", &settings.hang_cycles},
        {"clock2_percent", &settings.clock2_percent},
        {"trace_from", &settings.trace_from},
        {"trace_cycles", &settings.trace_cycles},
    };
    for (const auto &number : numbers)
        if (name == number.name) return *number.field = strtoull(value.c_str(), nullptr, 10), true;
    return false;
}

// Whether the file of a setting can be written; if not, says why.
inline bool writable(const char *setting, const std::string &path)
{
    if (path.empty()) return true;
    const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0)
        fprintf(stderr, "rtl.%s = %s cannot be written: %s\n", setting, path.c_str(), strerror(errno));
    else
        close(file);
    return file >= 0;
}

} // namespace apf
