// UTF-8 and the character classes that decide where words end.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "longhand_decoder/options.h"

namespace longhand {

enum class CharacterClass : std::uint8_t {
    kSpace,
    kLetter,
    kDigit,
    kApostrophe,
    kOther,
};

// Throws std::invalid_argument if `text` is not valid UTF-8; `what` names it in the message.
std::u32string decode_utf8(std::string_view text, const char* what);
void append_utf8(char32_t code_point, std::string& out);
CharacterClass character_class(char32_t code_point);
// Where words end at spaces only, everything else counts as a letter.
inline CharacterClass character_class(char32_t code_point, WordSplitting splitting) {
    const CharacterClass own = character_class(code_point);
    const bool splits = splitting == WordSplitting::kLetters || own == CharacterClass::kSpace;
    return splits ? own : CharacterClass::kLetter;
}
// Whether it is a capital with a small letter of its own, and the letter of the other case, as "e" of "E" and
// "E" of "e"; else the character itself.
bool is_capital(char32_t code_point);
char32_t other_case(char32_t code_point);

}  // namespace longhand
