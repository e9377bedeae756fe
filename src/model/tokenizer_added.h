// Finds added tokens ("<|im_end|>") in text: the leftmost, of those the longest.
//
// Immutable after creation; any thread. Linear in the text but for the length of the longest added token.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "model/tokenizer_spec.h"

namespace switchyard::model {

class AddedTokenFinder {
 public:
  // A stretch of the text: an added token, or (token < 0) text between them.
  struct Segment {
    std::size_t begin = 0;
    std::size_t end = 0;
    std::int32_t token = -1;
  };

  void add(std::string_view content, const AddedToken& token);
  bool empty() const { return tokens_.empty(); }

  // Appends the segments of `text` to `out`. Special tokens are left in the text where `parse_special` is
  // false.
  void find(std::string_view text, bool parse_special, std::vector<Segment>& out) const;

 private:
  struct Rule {
    std::int32_t id;
    bool special;
    bool lstrip;
    bool rstrip;
    bool single_word;
  };
  struct Edge {
    unsigned char byte;
    std::uint32_t node;
  };
  struct Node {
    std::int32_t token = -1;  // index into tokens_
    std::vector<Edge> edges;  // sorted
  };
  std::uint32_t child(std::uint32_t node, unsigned char byte) const;
  std::vector<Node> nodes_{Node{}};
  std::vector<Rule> tokens_;
  std::array<bool, 256> first_{};
};

}  // namespace switchyard::model
