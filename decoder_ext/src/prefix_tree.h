// The prefixes of one line as a tree in one array. A prefix is a node; its text is the path to the root.
#pragma once

#include <cstdint>
#include <vector>

#include "tokenizer.h"

namespace longhand {

// What the language models remember of a prefix.
struct ModelState {
    static constexpr std::uint32_t kNotYet = 0xFFFFFFFFu;

    std::uint32_t characters = 0;  // state of the character model's automaton; kNotYet until it is needed
    std::uint32_t words = 0;       // ... of the word model's, behind the last token that has ended
    std::uint32_t lexicon = 0;     // node of the open token in the lexicon
    std::uint32_t hotword_lexicon = 0;  // ... in the tree of the hotwords' words
    std::uint32_t hotword = 0;          // state of the hotword automaton
    std::uint32_t length = 0;           // characters of the open token
    Pending pending = Pending::kNothing;
    bool penalised = false;   // the open token has paid for being unknown
    bool capitals = false;    // the open token is in capitals
    bool code = false;        // a digit stands behind the last character that is neither digit nor capital
    bool forbidden = false;   // a closed lexicon does not have this prefix
    double deposit = 0.0;     // what the open token has paid beyond its final penalty: it gets that back
    double score = 0.0;       // everything the models add to the prefix's score
    double word_score = 0.0;  // natural log-probability in the word model, unweighted
    double character_score = 0.0;  // ... in the character model
};

struct PrefixNode {
    static constexpr std::uint32_t kNone = 0xFFFFFFFFu;

    std::uint32_t parent = kNone;
    std::uint32_t first_child = kNone;
    std::uint32_t next_sibling = kNone;
    std::uint32_t label = 0;
    std::uint32_t slot = 0;  // its place in the beam; 0 outside it
    ModelState state;
};

// A node lives as long as it is in the beam or has a descendant that is.
class PrefixTree {
  public:
    static constexpr std::uint32_t kRoot = 0;

    void reset(std::uint32_t root_label, const ModelState& state) {
        free_.clear();
        if (nodes_.empty()) nodes_.emplace_back();
        nodes_[kRoot] = PrefixNode{};
        nodes_[kRoot].label = root_label;
        nodes_[kRoot].state = state;
        used_ = 1;
    }

    void trim() {
        if (nodes_.capacity() <= kNodesKept) return;
        nodes_ = {};
        used_ = 0;
        free_ = {};
    }

    PrefixNode& operator[](std::uint32_t node) { return nodes_[node]; }
    const PrefixNode& operator[](std::uint32_t node) const { return nodes_[node]; }

    // kNone if there is none.
    std::uint32_t child(std::uint32_t parent, std::uint32_t label) const {
        std::uint32_t node = nodes_[parent].first_child;
        while (node != PrefixNode::kNone && nodes_[node].label != label) node = nodes_[node].next_sibling;
        return node;
    }

    // A new node, whose state is still to be written.
    std::uint32_t add(std::uint32_t parent, std::uint32_t label) {
        std::uint32_t node = used_;
        if (free_.empty()) {
            if (used_ == nodes_.size()) nodes_.emplace_back();
            ++used_;
        } else {
            node = free_.back();
            free_.pop_back();
        }
        PrefixNode& fresh = nodes_[node];
        fresh.parent = parent;
        fresh.first_child = PrefixNode::kNone;
        fresh.next_sibling = nodes_[parent].first_child;
        fresh.label = label;
        fresh.slot = 0;
        nodes_[parent].first_child = node;
        return node;
    }

    // Takes the node back that has just been added.
    void take_back(std::uint32_t node) {
        nodes_[nodes_[node].parent].first_child = nodes_[node].next_sibling;
        nodes_[node].parent = PrefixNode::kNone;
        free_.push_back(node);
    }

    // Removes a node that has left the beam, and its ancestors, as far as nothing hangs on them.
    void release(std::uint32_t node) {
        // The root has no parent, nor has a node that went together with its last descendant.
        while (nodes_[node].parent != PrefixNode::kNone && nodes_[node].first_child == PrefixNode::kNone &&
               nodes_[node].slot == 0) {
            const std::uint32_t parent = nodes_[node].parent;
            nodes_[node].parent = PrefixNode::kNone;
            std::uint32_t* link = &nodes_[parent].first_child;
            while (*link != node) link = &nodes_[*link].next_sibling;
            *link = nodes_[node].next_sibling;
            free_.push_back(node);
            node = parent;
        }
    }

  private:
    static constexpr std::size_t kNodesKept = std::size_t{1} << 16;  // memory kept from line to line

    std::vector<PrefixNode> nodes_;  // the first `used_`; the others are left from earlier lines
    std::uint32_t used_ = 0;
    std::vector<std::uint32_t> free_;
};

}  // namespace longhand
