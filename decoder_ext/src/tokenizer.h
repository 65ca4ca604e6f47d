// Where the word model's tokens begin and end, one character at a time.
#pragma once

#include <cstdint>

#include "unicode.h"

namespace longhand {

// What stands at the end of a prefix, as far as tokens are concerned.
enum class Pending : std::uint8_t {
    kNothing,         // no token is open: the start, a space, or a character that is a token of its own
    kWord,            // a word is open
    kNumber,          // a digit run is open
    kWordApostrophe,  // a word and an apostrophe, which belongs to the word only if a letter follows
};

// What one more character does to the open token.
struct TokenStep {
    Pending pending = Pending::kNothing;
    bool closes = false;  // the open token ends before this character (for kWordApostrophe: the word and "'")
    bool continues = false;  // the character belongs to the token that was open
    bool single = false;     // the character is a token of its own
    // Tokens that end with this step.
    int ended(Pending before) const {
        return (closes ? (before == Pending::kWordApostrophe ? 2 : 1) : 0) + single;
    }
};

inline TokenStep token_step(Pending before, CharacterClass next) {
    const bool open = before != Pending::kNothing;
    switch (next) {
        case CharacterClass::kLetter:
            if (before == Pending::kWord || before == Pending::kWordApostrophe) {
                return {Pending::kWord, false, true, false};
            }
            return {Pending::kWord, open, false, false};
        case CharacterClass::kDigit:
            if (before == Pending::kNumber) return {Pending::kNumber, false, true, false};
            return {Pending::kNumber, open, false, false};
        case CharacterClass::kApostrophe:
            if (before == Pending::kWord) return {Pending::kWordApostrophe, false, true, false};
            return {Pending::kNothing, open, false, true};
        case CharacterClass::kSpace:
            return {Pending::kNothing, open, false, false};
        case CharacterClass::kOther:
            break;
    }
    return {Pending::kNothing, open, false, true};
}

}  // namespace longhand
