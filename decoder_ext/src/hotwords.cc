#include "hotwords.h"

#include <algorithm>
#include <map>
#include <stdexcept>
#include <utility>

namespace longhand {

namespace {
constexpr std::uint32_t kNone = 0xFFFFFFFFu;
}

bool HotwordAutomaton::boundary(char32_t last, char32_t next) const {
    if (last == 0) return true;
    const CharacterClass a = character_class(last, splitting_);
    return a != character_class(next, splitting_) ||
           (a != CharacterClass::kLetter && a != CharacterClass::kDigit);
}

HotwordAutomaton::HotwordAutomaton(const std::vector<Hotword>& hotwords, WordSplitting splitting)
    : splitting_(splitting), nodes_(1) {
    std::map<std::u32string, double> boosts;
    WordList words;
    for (const Hotword& hotword : hotwords) {
        const std::u32string text = decode_utf8(hotword.text, "a hotword");
        if (text.empty() || character_class(text.front()) == CharacterClass::kSpace ||
            character_class(text.back()) == CharacterClass::kSpace) {
            throw std::invalid_argument("hotword '" + hotword.text +
                                        "' is empty or begins or ends with a space");
        }
        const auto [found, fresh] = boosts.try_emplace(text, hotword.boost);
        if (!fresh) found->second = std::max(found->second, hotword.boost);
        for (const std::string& token : tokenize_words(hotword.text, splitting)) {
            words.add(decode_utf8(token, "a hotword"), 0);
        }
    }
    for (const auto& [text, boost] : boosts) add(text, boost);
    link();
    lexicon_ = Lexicon(std::move(words));
}

void HotwordAutomaton::add(const std::u32string& text, double boost) {
    std::uint32_t node = kRoot;
    for (const char32_t character : text) {
        const auto fresh = static_cast<std::uint32_t>(nodes_.size());
        const auto [found, added] = children_.try_emplace(key(node, character), fresh);
        if (added) {
            Node next;
            next.depth = nodes_[node].depth + 1;
            next.character = character;
            nodes_.push_back(next);
        }
        node = found->second;
        const double share = boost * nodes_[node].depth / static_cast<double>(text.size());
        nodes_[node].credit = std::max(nodes_[node].credit, share);
    }
    nodes_[node].boost = boost;
}

void HotwordAutomaton::link() {
    // Parents before children, whatever order the words came in.
    struct Edge {
        std::uint32_t depth, parent, node;
    };
    std::vector<Edge> edges;
    for (const auto& [from, node] : children_) {
        edges.push_back({nodes_[node].depth, static_cast<std::uint32_t>(from >> 32), node});
    }
    std::sort(edges.begin(), edges.end(), [](const Edge& a, const Edge& b) {
        return std::pair(a.depth, a.node) < std::pair(b.depth, b.node);
    });
    for (const Edge& edge : edges) {
        Node& node = nodes_[edge.node];
        const Node& parent = nodes_[edge.parent];
        if (edge.parent != kRoot) node.failure = step(parent.failure, parent.character, node.character);
        node.paid = node.boost + nodes_[node.failure].paid;
        // A failed match falls back to a shorter one: its credit is never less than that one's.
        node.credit = std::max({node.credit, node.paid, nodes_[node.failure].credit});
        largest_credit_ = std::max(largest_credit_, node.credit);
    }
}

std::uint32_t HotwordAutomaton::child(std::uint32_t node, char32_t c) const {
    const auto found = children_.find(key(node, c));
    return found == children_.end() ? kNone : found->second;
}

std::uint32_t HotwordAutomaton::step(std::uint32_t state, char32_t last, char32_t next) const {
    while (state != kRoot) {
        const std::uint32_t target = child(state, next);
        if (target != kNone) return target;
        state = nodes_[state].failure;
    }
    if (!boundary(last, next)) return kRoot;
    const std::uint32_t target = child(kRoot, next);
    return target == kNone ? kRoot : target;
}

}  // namespace longhand
