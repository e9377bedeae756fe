#include "model/tokenizer_bpe.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

namespace switchyard::model {
namespace {

std::uint64_t key_of(std::int32_t left, std::int32_t right) {
  return (std::uint64_t{static_cast<std::uint32_t>(left)} << 32) | static_cast<std::uint32_t>(right);
}

// The heap's top is the candidate that merges first.
bool later(const BpeMerger::Candidate& a, const BpeMerger::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
}

}  // namespace

void MergeTable::reserve(std::size_t count) {
  slots_.assign(std::bit_ceil(2 * count + 2), Slot{});
  mask_ = slots_.size() - 1;
}

std::size_t MergeTable::place(std::uint64_t key) const {
  std::uint64_t hash = key * 0x9e3779b97f4a7c15;
  hash ^= hash >> 32;
  std::size_t at = hash & mask_;
  while (slots_[at].key != key && slots_[at].key != kEmpty) at = (at + 1) & mask_;
  return at;
}

void MergeTable::set(std::int32_t left, std::int32_t right, Merge merge) {
  Slot& slot = slots_[place(key_of(left, right))];
  slot.key = key_of(left, right);
  slot.merge = merge;
}

const MergeTable::Merge* MergeTable::find(std::int32_t left, std::int32_t right) const {
  if (left < 0 || right < 0) return nullptr;
  const Slot& slot = slots_[place(key_of(left, right))];
  return slot.key == kEmpty ? nullptr : &slot.merge;
}

Result<BpeMerger> BpeMerger::create(const TokenizerSpec& spec,
                                    const std::unordered_map<std::string_view, std::int32_t>& ids) {
  BpeMerger merger;
  merger.table_.reserve(spec.merges.size());
  std::string joined;
  for (std::size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const auto& [left, right] = spec.merges[rank];
    joined = left;
    joined += right;
    const auto left_id = ids.find(left);
    const auto right_id = ids.find(right);
    const auto token = ids.find(joined);
    if (left_id == ids.end() || right_id == ids.end() || token == ids.end()) {
      return fail(ErrorCode::corrupt,
                  "merge {} ('{}' and '{}') is of or makes a token that the vocabulary lacks", rank, left,
                  right);
    }
    merger.table_.set(left_id->second, right_id->second, {static_cast<std::uint32_t>(rank), token->second});
  }
  merger.by_score_ = spec.merges.empty() && !spec.scores.empty();
  if (!merger.by_score_) return merger;
  // Scores become ranks, so that both kinds merge alike; equal scores are equal ranks.
  std::vector<std::int32_t> order;
  for (std::size_t id = 0; id < spec.scores.size(); ++id) {
    const auto kind = spec.kinds[id];
    if (std::isnan(spec.scores[id]))
      return fail(ErrorCode::corrupt, "the score of token {} is not a number", id);
    if (kind == TokenKind::normal || kind == TokenKind::user_defined)
      order.push_back(static_cast<std::int32_t>(id));
  }
  std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    const float left = spec.scores[static_cast<std::size_t>(a)];
    const float right = spec.scores[static_cast<std::size_t>(b)];
    return left != right ? left > right : a < b;
  });
  std::uint32_t rank = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto id = static_cast<std::size_t>(order[i]);
    if (i > 0 && spec.scores[id] != spec.scores[static_cast<std::size_t>(order[i - 1])]) ++rank;
    merger.pieces_.try_emplace(spec.tokens[id], MergeTable::Merge{rank, order[i]});
    merger.longest_piece_ = std::max(merger.longest_piece_, spec.tokens[id].size());
  }
  return merger;
}

bool BpeMerger::pair(std::string_view word, const Symbol& left, const Symbol& right,
                     Candidate& candidate) const {
  if (!by_score_) {
    const auto* merge = table_.find(left.token, right.token);
    if (merge == nullptr) return false;
    candidate.rank = merge->rank;
    candidate.token = merge->token;
    return true;
  }
  const std::size_t length = std::size_t{left.length} + right.length;
  if (length > longest_piece_) return false;
  const auto found = pieces_.find(std::string(word.substr(left.begin, length)));
  if (found == pieces_.end()) return false;
  candidate.rank = found->second.rank;
  candidate.token = found->second.token;
  return true;
}

void BpeMerger::merge(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& out) const {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  heap.clear();
  const auto count = static_cast<std::int32_t>(symbols.size());
  for (std::int32_t i = 0; i < count; ++i) {
    symbols[i].previous = i - 1;
    symbols[i].next = i + 1 < count ? i + 1 : -1;
  }
  Candidate candidate{};
  for (std::int32_t i = 0; i + 1 < count; ++i) {
    candidate.left = i;
    if (pair(word, symbols[i], symbols[i + 1], candidate)) heap.push_back(candidate);
  }
  std::make_heap(heap.begin(), heap.end(), later);
  const auto push = [&](std::int32_t left) {
    candidate.left = left;
    if (!pair(word, symbols[left], symbols[symbols[left].next], candidate)) return;
    heap.push_back(candidate);
    std::push_heap(heap.begin(), heap.end(), later);
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Candidate best = heap.back();
    heap.pop_back();
    Symbol& left = symbols[best.left];
    if (left.length == 0 || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    // One of the two may have merged otherwise since; then this is the merge of a pair that is no more.
    Candidate now{};
    if (!pair(word, left, right, now) || now.token != best.token) continue;
    left.token = best.token;
    left.length += right.length;
    right.length = 0;
    left.next = right.next;
    if (left.next >= 0) {
      symbols[left.next].previous = best.left;
      push(best.left);
    }
    if (left.previous >= 0) push(left.previous);
  }
  for (std::int32_t i = count > 0 ? 0 : -1; i >= 0; i = symbols[i].next) out.push_back(symbols[i].token);
}

}  // namespace switchyard::model
