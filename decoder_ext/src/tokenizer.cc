#include "tokenizer.h"

#include <string>
#include <vector>

#include "longhand_decoder/language_model.h"

namespace longhand {

std::vector<std::string> tokenize_words(const std::string& text, WordSplitting splitting) {
    std::vector<std::string> tokens;
    std::string open;
    Pending pending = Pending::kNothing;
    std::string apostrophe;  // the one that waits for a letter
    const auto close = [&] {
        tokens.push_back(std::move(open));
        open.clear();
        if (pending == Pending::kWordApostrophe) tokens.push_back(std::move(apostrophe));
        apostrophe.clear();
    };
    for (const char32_t code : decode_utf8(text, "text")) {
        const TokenStep step = token_step(pending, character_class(code, splitting));
        if (step.closes) close();
        if (step.single) {
            tokens.emplace_back();
            append_utf8(code, tokens.back());
        } else if (step.pending == Pending::kWordApostrophe) {
            append_utf8(code, apostrophe);
        } else if (step.pending != Pending::kNothing) {
            open += apostrophe;
            apostrophe.clear();
            append_utf8(code, open);
        }
        pending = step.pending;
    }
    if (pending != Pending::kNothing) close();
    return tokens;
}

}  // namespace longhand
