// design_log.h - what the design prints ($display, $error), for the answers to the driver.
#pragma once

#include <cstdio>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

namespace apf
{

constexpr int LOG = 5;                 // descriptor of the file that receives standard output
constexpr size_t LOG_LIMIT = 16 << 10; // largest number of bytes of it in one answer

// A text as the inside of a JSON string.
inline std::string escaped(const std::string &text)
{
    std::string out;
    for (unsigned char c : text) {
        char code[8];
        if (c == '"' || c == '\\')
            out += std::string("\\") + char(c);
        else if (c < 0x20 || c >= 0x7F) {
            snprintf(code, sizeof code, "\\u%04x", c);
            out += code;
        } else
            out += char(c);
    }
    return out;
}

// The text that the design has printed since the last call.
inline std::string printed()
{
    static off_t at = 0;
    fflush(stdout);
    struct stat status;
    if (fstat(LOG, &status) || status.st_size <= at) return "";
    const off_t from = status.st_size - at > off_t(LOG_LIMIT) ? status.st_size - off_t(LOG_LIMIT) : at;
    std::string text(size_t(status.st_size - from), '\0');
    const ssize_t got = pread(LOG, &text[0], text.size(), from);
    text.resize(got < 0 ? 0 : size_t(got));
    at = status.st_size;
    return text;
}

// The last two lines of a text as one: for $fatal, its message and what was printed before.
inline std::string last_lines(std::string text)
{
    while (!text.empty() && text.back() == '\n') text.pop_back();
    const size_t second = text.rfind('\n');
    if (second == std::string::npos) return text;
    const size_t first = second ? text.rfind('\n', second - 1) : std::string::npos;
    text[second] = '|';
    return text.substr(first + 1);
}

} // namespace apf
