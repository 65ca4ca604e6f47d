#include "hotwords.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace longhand {

bool HotwordAutomaton::boundary(char32_t last, char32_t next) const {
    if (last == 0) return true;
    const CharacterClass a = character_class(last, splitting_);
    return a != character_class(next, splitting_) ||
           (a != CharacterClass::kLetter && a != CharacterClass::kDigit);
}

HotwordAutomaton::HotwordAutomaton(const std::vector<Hotword>& hotwords, WordSplitting splitting)
    : splitting_(splitting) {
    std::vector<std::u32string> texts;
    texts.reserve(hotwords.size());
    WordList phrases, words;
    for (const Hotword& hotword : hotwords) {
        const std::u32string& text = texts.emplace_back(decode_utf8(hotword.text, "a hotword"));
        if (text.empty() || character_class(text.front()) == CharacterClass::kSpace ||
            character_class(text.back()) == CharacterClass::kSpace) {
            throw std::invalid_argument("hotword '" + hotword.text +
                                        "' is empty or begins or ends with a space");
        }
        phrases.add(text, 0);
        for (const std::string& token : tokenize_words(hotword.text, splitting)) {
            words.add(decode_utf8(token, "a hotword"), 0);
        }
    }
    tree_ = Lexicon(std::move(phrases));
    lexicon_ = Lexicon(std::move(words));
    nodes_.resize(tree_.size());
    std::vector<Origin> origins(tree_.size());
    for (std::size_t i = 0; i < hotwords.size(); ++i) add(texts[i], hotwords[i].boost, origins);
    link(origins);
}

void HotwordAutomaton::add(const std::u32string& text, double boost, std::vector<Origin>& origins) {
    std::uint32_t node = kRoot;
    double depth = 0.0;
    for (const char32_t character : text) {
        const std::uint32_t parent = node;
        node = tree_.step(parent, tree_.symbol(character));
        origins[node].parent = parent;
        origins[node].character = character;
        const double share = boost * ++depth / static_cast<double>(text.size());
        nodes_[node].credit = std::max(nodes_[node].credit, share);
    }
    std::optional<double>& own = origins[node].boost;
    own = own ? std::max(*own, boost) : boost;
}

// Parents before children: the tree is in breadth-first order.
void HotwordAutomaton::link(const std::vector<Origin>& origins) {
    for (std::uint32_t number = kRoot + 1; number < nodes_.size(); ++number) {
        const Origin& origin = origins[number];
        Node& node = nodes_[number];
        if (origin.parent != kRoot)
            node.failure =
                step(nodes_[origin.parent].failure, origins[origin.parent].character, origin.character);
        node.paid = origin.boost.value_or(0.0) + nodes_[node.failure].paid;
        // A failed match falls back to a shorter one: its credit is never less than that one's.
        node.credit = std::max({node.credit, node.paid, nodes_[node.failure].credit});
        largest_credit_ = std::max(largest_credit_, node.credit);
    }
}

std::uint32_t HotwordAutomaton::step(std::uint32_t state, char32_t last, char32_t next) const {
    const Lexicon::Symbol symbol = tree_.symbol(next);
    for (; state != kRoot; state = nodes_[state].failure) {
        const std::uint32_t target = tree_.step(state, symbol);
        if (target != Lexicon::kDead) return target;
    }
    if (!boundary(last, next)) return kRoot;
    const std::uint32_t target = tree_.step(kRoot, symbol);
    return target == Lexicon::kDead ? kRoot : target;
}

}  // namespace longhand
