// Cuts text into words by the rules of a TokenizerSpec.
//
// Immutable after creation; any thread, each call with its own Scratch. A rule that would run away on some
// text is stopped by PCRE2's limits, and what it had left is then one word: cutting never fails.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "model/tokenizer_spec.h"
#include "switchyard/result.h"

namespace switchyard::model {

class Splitter {
 public:
  struct Piece {
    std::size_t begin = 0;
    std::size_t end = 0;
  };

  // Working memory of one caller; may be used again.
  class Scratch {
   public:
    explicit Scratch(const Splitter& splitter);
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

   private:
    friend class Splitter;
    struct State;
    std::unique_ptr<State> state_;
  };

  // Errors: corrupt (a pattern that does not compile), unsupported.
  static Result<Splitter> create(std::span<const SplitRule> rules);
  ~Splitter();
  Splitter(Splitter&&) noexcept;
  Splitter& operator=(Splitter&&) noexcept;

  // The words of `text` (valid UTF-8), in order; valid until the scratch's next use. Linear, but for the
  // patterns.
  std::span<const Piece> split(std::string_view text, Scratch& scratch) const;

 private:
  struct Rule;
  Splitter();
  void find(const Rule& rule, std::size_t index, std::string_view text, Piece piece,
            Scratch::State& state) const;
  std::vector<Rule> rules_;
};

}  // namespace switchyard::model
