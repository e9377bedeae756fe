#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/tokenizer_splitter.h"

#include <pcre2.h>

#include <algorithm>
#include <array>

#include "model/tokenizer_patterns.h"
#include "model/unicode.h"

namespace switchyard::model {
namespace {

using Behaviour = SplitRule::Behaviour;
using Kind = SplitRule::Kind;

constexpr std::size_t kMaxRules = 64;
constexpr std::uint32_t kHeapKib = 64 << 10;
constexpr std::uint32_t kDepthLimit = 1 << 20;

template <auto Free>
struct Freed {
  template <class T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Code = std::unique_ptr<pcre2_code, Freed<pcre2_code_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Freed<pcre2_match_data_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Freed<pcre2_match_context_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, Freed<pcre2_jit_stack_free>>;

// A stretch of a piece, and whether the rule matched it.
struct Stretch {
  std::size_t begin;
  std::size_t end;
  bool match;
};

bool belongs(Kind kind, char32_t code) {
  switch (kind) {
    case Kind::digits_individually:
    case Kind::digits_runs:
      return is_numeric(code);
    case Kind::punctuation:
      return is_punctuation(code);
    case Kind::whitespace:
      return is_white_space(code);
    case Kind::pattern:
      break;
  }
  return false;
}

}  // namespace

struct Splitter::Rule {
  Kind kind;
  Behaviour behaviour;
  bool invert;
  Code code;
};

struct Splitter::Scratch::State {
  MatchContext context;
  JitStack jit_stack;
  std::vector<MatchData> data;  // parallel to rules
  std::vector<bool> stopped;    // rules that ran into a limit: not tried again by this caller
  std::vector<Piece> pieces;
  std::vector<Piece> next;
  std::vector<Stretch> stretches;
};

Splitter::Splitter() = default;
Splitter::~Splitter() = default;
Splitter::Splitter(Splitter&&) noexcept = default;
Splitter& Splitter::operator=(Splitter&&) noexcept = default;

Splitter::Scratch::Scratch(const Splitter& splitter) : state_(std::make_unique<State>()) {
  state_->context.reset(pcre2_match_context_create(nullptr));
  pcre2_set_heap_limit(state_->context.get(), kHeapKib);
  pcre2_set_depth_limit(state_->context.get(), kDepthLimit);
  state_->jit_stack.reset(pcre2_jit_stack_create(32 << 10, 1 << 20, nullptr));
  if (state_->jit_stack) pcre2_jit_stack_assign(state_->context.get(), nullptr, state_->jit_stack.get());
  for (const auto& rule : splitter.rules_) {
    state_->data.emplace_back(rule.code ? pcre2_match_data_create_from_pattern(rule.code.get(), nullptr)
                                        : nullptr);
  }
  state_->stopped.resize(splitter.rules_.size());
}

Splitter::Scratch::~Scratch() = default;

Result<Splitter> Splitter::create(std::span<const SplitRule> rules) {
  if (rules.size() > kMaxRules) {
    return fail(ErrorCode::unsupported, "{} rules that cut words; at most {} are applied", rules.size(),
                kMaxRules);
  }
  Splitter splitter;
  for (const auto& rule : rules) {
    Rule& made = splitter.rules_.emplace_back(Rule{rule.kind, rule.behaviour, rule.invert, nullptr});
    if (rule.kind != Kind::pattern) continue;
    const auto pattern = pattern_for_pcre2(rule.pattern);
    if (!pattern) return pass(pattern.error());
    int error = 0;
    PCRE2_SIZE offset = 0;
    made.code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern->data()), pattern->size(),
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr));
    if (!made.code) {
      std::array<PCRE2_UCHAR, 256> message{};
      pcre2_get_error_message(error, message.data(), message.size());
      return fail(ErrorCode::corrupt, "the word pattern {} does not compile: {} at byte {}",
                  std::string_view(rule.pattern).substr(0, 128),
                  reinterpret_cast<const char*>(message.data()), offset);
    }
    // Without JIT (not built in, or no executable memory) matching is interpreted: slower, the same result.
    static_cast<void>(pcre2_jit_compile(made.code.get(), PCRE2_JIT_COMPLETE));
  }
  return splitter;
}

// Fills state.stretches: all of the piece, in order, alternating between what matches and what does not.
void Splitter::find(const Rule& rule, std::size_t index, std::string_view text, Piece piece,
                    Scratch::State& state) const {
  auto& stretches = state.stretches;
  stretches.clear();
  const auto put = [&](std::size_t begin, std::size_t end, bool match) {
    if (begin != end) stretches.push_back({piece.begin + begin, piece.begin + end, match != rule.invert});
  };
  const std::string_view subject = text.substr(piece.begin, piece.end - piece.begin);
  std::size_t done = 0;  // everything before is in stretches
  if (rule.kind != Kind::pattern) {
    for (std::size_t position = 0; position < subject.size();) {
      const Utf8Step step = utf8_step(subject, position);
      if (belongs(rule.kind, step.code)) {
        put(done, position, false);
        put(position, position + step.length, true);
        done = position + step.length;
      }
      position += step.length;
    }
    put(done, subject.size(), false);
    return;
  }
  // A pattern may look at every byte of the piece a few times, but not more.
  const std::uint64_t limit = 1'000'000 + 32 * std::uint64_t{subject.size()};
  pcre2_set_match_limit(state.context.get(),
                        static_cast<std::uint32_t>(std::min<std::uint64_t>(limit, 0xffffffff)));
  pcre2_match_data* data = state.data[index].get();
  const auto* bytes = reinterpret_cast<PCRE2_SPTR>(subject.data());
  for (std::size_t start = 0; start <= subject.size() && !state.stopped[index];) {
    int found = pcre2_match(rule.code.get(), bytes, subject.size(), start, PCRE2_NO_UTF_CHECK, data,
                            state.context.get());
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
      found = pcre2_match(rule.code.get(), bytes, subject.size(), start, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                          data, state.context.get());
    }
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0) {
      state.stopped[index] = true;
      break;
    }
    const auto* range = pcre2_get_ovector_pointer(data);
    const std::size_t begin = range[0];
    const std::size_t end = range[1];
    if (begin < start || end < begin) break;  // only look-behind with \K could do that
    if (begin == end) {
      // An empty match cuts nothing; the search goes on behind the next character.
      if (begin >= subject.size()) break;
      start = begin + utf8_step(subject, begin).length;
      continue;
    }
    put(done, begin, false);
    put(begin, end, true);
    start = done = end;
  }
  put(done, subject.size(), false);
}

std::span<const Splitter::Piece> Splitter::split(std::string_view text, Scratch& scratch) const {
  auto& state = *scratch.state_;
  state.pieces.assign(1, Piece{0, text.size()});
  if (text.empty()) state.pieces.clear();
  for (std::size_t index = 0; index < rules_.size(); ++index) {
    const Rule& rule = rules_[index];
    auto& out = state.next;
    out.clear();
    for (const Piece piece : state.pieces) {
      find(rule, index, text, piece, state);
      const auto& stretches = state.stretches;
      const auto first = static_cast<std::ptrdiff_t>(out.size());
      const auto behaviour = rule.kind == Kind::digits_runs  ? Behaviour::contiguous
                             : rule.kind == Kind::whitespace ? Behaviour::removed
                                                             : rule.behaviour;
      bool previous = false;
      switch (behaviour) {
        case Behaviour::isolated:
          for (const auto& s : stretches) out.push_back({s.begin, s.end});
          break;
        case Behaviour::removed:
          for (const auto& s : stretches) {
            if (!s.match) out.push_back({s.begin, s.end});
          }
          break;
        case Behaviour::merged_with_previous:
          for (const auto& s : stretches) {
            if (s.match && !previous && static_cast<std::ptrdiff_t>(out.size()) > first) {
              out.back().end = s.end;
            } else {
              out.push_back({s.begin, s.end});
            }
            previous = s.match;
          }
          break;
        case Behaviour::merged_with_next:
          for (auto s = stretches.rbegin(); s != stretches.rend(); ++s) {
            if (s->match && !previous && static_cast<std::ptrdiff_t>(out.size()) > first) {
              out.back().begin = s->begin;
            } else {
              out.push_back({s->begin, s->end});
            }
            previous = s->match;
          }
          std::reverse(out.begin() + first, out.end());
          break;
        case Behaviour::contiguous:
          for (const auto& s : stretches) {
            if (s.match == previous && static_cast<std::ptrdiff_t>(out.size()) > first) {
              out.back().end = s.end;
            } else {
              out.push_back({s.begin, s.end});
            }
            previous = s.match;
          }
          break;
      }
    }
    std::swap(state.pieces, state.next);
  }
  return state.pieces;
}

}  // namespace switchyard::model
