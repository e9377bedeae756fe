// Byte-pair merging: joins the symbols of one word, best merge first, leftmost first among equals.
//
// O(n log n) in the word. Immutable after creation; any thread, each call with its own Scratch.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "model/tokenizer_spec.h"
#include "switchyard/result.h"

namespace switchyard::model {

// Which token two neighbouring tokens make, and how good that merge is (0 is best). Open addressing.
class MergeTable {
 public:
  struct Merge {
    std::uint32_t rank;
    std::int32_t token;
  };
  void reserve(std::size_t count);
  void set(std::int32_t left, std::int32_t right, Merge merge);
  const Merge* find(std::int32_t left, std::int32_t right) const;

 private:
  struct Slot {
    std::uint64_t key = kEmpty;
    Merge merge{};
  };
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};
  std::size_t place(std::uint64_t key) const;
  std::vector<Slot> slots_;
  std::size_t mask_ = 0;
};

class BpeMerger {
 public:
  struct Symbol {
    std::size_t begin = 0;  // bytes of the word
    std::uint32_t length = 0;
    std::int32_t token = -1;
    std::int32_t previous = -1;
    std::int32_t next = -1;
  };
  struct Candidate {
    std::uint32_t rank;
    std::int32_t left;
    std::int32_t token;
  };
  struct Scratch {
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
  };

  // By the spec's merges; without any, by the scores of what merging makes. `ids`: text of a token to its id.
  // Errors: corrupt.
  static Result<BpeMerger> create(const TokenizerSpec& spec,
                                  const std::unordered_map<std::string_view, std::int32_t>& ids);

  // Merges scratch.symbols (their begin, length and token are given), which lie in `word`, and appends the
  // tokens.
  void merge(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& out) const;

 private:
  bool pair(std::string_view word, const Symbol& left, const Symbol& right, Candidate& candidate) const;
  bool by_score_ = false;
  MergeTable table_;
  // By score: what a stretch of the word may become.
  std::unordered_map<std::string, MergeTable::Merge> pieces_;
  std::size_t longest_piece_ = 0;
};

}  // namespace switchyard::model
