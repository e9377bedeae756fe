// Finds stop strings in text that comes in pieces.
//
// The stop string that is complete first wins (the longest, if several are complete at the same byte),
// wherever the borders of the pieces are. Text that may still become a match is held back; everything else is
// given out at once. Cost: one automaton step (Knuth, Morris, Pratt) per stop string and byte. Not
// thread-safe.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard::gateway {

class StopMatcher {
 public:
  explicit StopMatcher(const std::vector<std::string>& stops);  // no empty strings

  // The text that may be delivered now. After a match: what stood before it, and nothing ever after.
  std::string push(std::string_view text);
  // At the end of the text: what was held back.
  std::string finish();
  bool matched() const { return matched_; }

 private:
  struct Automaton {
    std::string stop;
    std::vector<std::size_t> failure;  // [i]: longest proper border of stop[0, i)
    std::size_t state = 0;             // how much of the stop string the text ends in
  };

  std::vector<Automaton> automata_;
  std::string held_;
  bool matched_ = false;
};

}  // namespace switchyard::gateway
