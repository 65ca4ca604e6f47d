#include "unicode.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>

namespace longhand {

namespace {

struct ClassRange {
    char32_t first, last;
    CharacterClass value;
};

constexpr ClassRange kClassRanges[] = {
#include "unicode_table.inc"
};

struct CapitalRun {
    char32_t first, last;
    std::uint32_t step;
    std::int32_t distance;  // to the small letters
};

constexpr CapitalRun kCapitalRuns[] = {
#include "case_table.inc"
};

bool holds(const CapitalRun& run, char32_t code) {
    return code >= run.first && code <= run.last && (code - run.first) % run.step == 0;
}

// The code point that starts at text[at], whose length goes to `length`; false if the bytes are no UTF-8.
bool next_code_point(std::string_view text, std::size_t at, char32_t& code, std::size_t& length) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned char lead = byte(at);
    length = lead < 0x80 ? 1 : lead >= 0xC2 && lead < 0xE0 ? 2 : lead >= 0xE0 && lead < 0xF0 ? 3 : 4;
    if ((lead >= 0x80 && lead < 0xC2) || lead > 0xF4 || at + length > text.size()) return false;
    code = length == 1 ? lead : lead & (0xFFu >> (length + 1));
    for (std::size_t i = 1; i < length; ++i) {
        if ((byte(at + i) & 0xC0) != 0x80) return false;
        code = (code << 6) | (byte(at + i) & 0x3Fu);
    }
    constexpr char32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
    return code >= kSmallest[length] && code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
}

}  // namespace

std::u32string decode_utf8(std::string_view text, const char* what) {
    std::u32string out;
    out.reserve(text.size());
    for (std::size_t at = 0, length = 0; at < text.size(); at += length) {
        char32_t code = 0;
        if (!next_code_point(text, at, code, length)) {
            throw std::invalid_argument(std::string(what) + " is not valid UTF-8 at byte " +
                                        std::to_string(at));
        }
        out.push_back(code);
    }
    return out;
}

void append_utf8(char32_t code, std::string& out) {
    if (code < 0x80) {
        out.push_back(static_cast<char>(code));
        return;
    }
    const int extra = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    constexpr unsigned kLead[] = {0, 0xC0, 0xE0, 0xF0};
    out.push_back(static_cast<char>(kLead[extra] | (code >> (6 * extra))));
    for (int i = extra - 1; i >= 0; --i) out.push_back(static_cast<char>(0x80 | ((code >> (6 * i)) & 0x3F)));
}

CharacterClass character_class(char32_t code) {
    if (code == U'\'' || code == U'\u2019') return CharacterClass::kApostrophe;
    const ClassRange* range = std::lower_bound(std::begin(kClassRanges), std::end(kClassRanges), code,
                                               [](const ClassRange& r, char32_t c) { return r.last < c; });
    return range != std::end(kClassRanges) && code >= range->first ? range->value : CharacterClass::kOther;
}

bool is_capital(char32_t code) {
    return std::any_of(std::begin(kCapitalRuns), std::end(kCapitalRuns),
                       [&](const CapitalRun& run) { return holds(run, code); });
}

char32_t other_case(char32_t code) {
    for (const CapitalRun& run : kCapitalRuns) {
        if (holds(run, code)) return code + static_cast<char32_t>(run.distance);
        const char32_t capital = code - static_cast<char32_t>(run.distance);
        if (holds(run, capital)) return capital;
    }
    return code;
}

}  // namespace longhand
