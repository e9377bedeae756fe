#include "kv/prefix_index.h"

#include <algorithm>
#include <cassert>

namespace switchyard::kv {
namespace {

// The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace

PrefixIndex::PrefixIndex(const Options& options) : options_(options) { assert(options.block_tokens != 0); }

std::uint32_t PrefixIndex::match(ModelId model, std::span<const std::int32_t> prompt,
                                 std::vector<BlockId>& blocks) {
  const std::size_t size = options_.block_tokens;
  ++clock_;
  ++counts_.lookups;
  counts_.tokens_asked += prompt.size();
  std::uint32_t found = 0;
  std::uint32_t parent = kNone;
  // One token at least is left.
  for (; (found + 1) * size < prompt.size(); ++found) {
    const std::uint32_t index = find(model, parent, prompt.subspan(found * size, size));
    if (index == kNone) break;
    reference(index);
    touch(index);
    blocks.push_back(nodes_[index].block);
    parent = index;
  }
  counts_.hits += found != 0 ? 1 : 0;
  counts_.tokens_saved += found * size;
  return found;
}

void PrefixIndex::insert(ModelId model, std::span<const std::int32_t> tokens,
                         std::span<const BlockId> blocks) {
  const std::size_t size = options_.block_tokens;
  ++clock_;
  std::uint32_t parent = kNone;
  for (std::size_t i = 0; i < blocks.size() && (i + 1) * size <= tokens.size(); ++i) {
    const auto part = tokens.subspan(i * size, size);
    std::uint32_t index = find(model, parent, part);
    if (index == kNone) {
      // A block that is known by other tokens, or was forgotten, cannot stand here, nor what follows it.
      if (by_block_.contains(blocks[i]) || by_block_.size() >= options_.max_blocks) return;
      index = add(model, parent, part, blocks[i]);
      reference(index);
    }
    touch(index);
    parent = index;
  }
}

void PrefixIndex::release(std::span<const BlockId> blocks, std::vector<BlockId>& freed) {
  ++clock_;
  for (const BlockId block : blocks) {
    const auto found = by_block_.find(block);
    if (found == by_block_.end()) {
      freed.push_back(block);
      continue;
    }
    const std::uint32_t index = found->second;
    Node& node = nodes_[index];
    assert(node.references != 0);
    if (node.references == 0) continue;
    if (--node.references == 0) --referenced_;
    if (node.forgotten) {
      if (node.references != 0) continue;
      freed.push_back(block);
      remove(index);
      continue;
    }
    touch(index);
    if (!in_use(node)) use_ends(index);
  }
}

std::uint32_t PrefixIndex::evict(std::uint32_t count, std::vector<Evicted>& evicted) {
  for (std::uint32_t done = 0; done < count; ++done) {
    const ModelId* oldest = nullptr;
    std::uint64_t last_used = UINT64_MAX;
    for (const auto& [id, model] : models_) {
      if (model.leaves.empty() || model.leaves.begin()->first >= last_used) continue;
      oldest = &id;
      last_used = model.leaves.begin()->first;
    }
    if (oldest == nullptr) return done;
    evict_first(*oldest, evicted);
  }
  return count;
}

std::uint32_t PrefixIndex::evict(ModelId model, std::uint32_t count, std::vector<Evicted>& evicted) {
  for (std::uint32_t done = 0; done < count; ++done) {
    const auto found = models_.find(model);
    if (found == models_.end() || found->second.leaves.empty()) return done;
    evict_first(model, evicted);
  }
  return count;
}

void PrefixIndex::evict_first(ModelId model, std::vector<Evicted>& evicted) {
  const std::uint32_t index = models_.at(model).leaves.begin()->second;
  const std::uint32_t parent = nodes_[index].parent;
  evicted.push_back({model, nodes_[index].block});
  ++counts_.evictions;
  unlist(index);
  Model& tree = models_.at(model);
  --tree.unused;
  remove(index);
  if (parent == kNone) return;
  --nodes_[parent].children;
  list(parent);
}

void PrefixIndex::evict_all(ModelId model, std::vector<Evicted>& evicted) {
  if (!models_.contains(model)) return;
  models_.erase(model);
  for (std::uint32_t index = 0; index < nodes_.size(); ++index) {
    Node& node = nodes_[index];
    const auto known = by_block_.find(node.block);
    if (node.model != model || node.forgotten || known == by_block_.end() || known->second != index) continue;
    unhash(index);
    node.forgotten = true;
    node.parent = kNone;
    node.children = node.used_below = 0;
    if (node.references != 0) continue;
    evicted.push_back({model, node.block});
    ++counts_.evictions;
    remove(index);
  }
}

bool PrefixIndex::moved(BlockId from, BlockId to) {
  const auto found = by_block_.find(from);
  if (found == by_block_.end()) return false;
  const std::uint32_t index = found->second;
  by_block_.erase(found);
  assert(!by_block_.contains(to));
  by_block_[to] = index;
  nodes_[index].block = to;
  return true;
}

std::uint32_t PrefixIndex::unused(ModelId model) const {
  const auto found = models_.find(model);
  return found == models_.end() ? 0 : found->second.unused;
}

PrefixIndex::Stats PrefixIndex::stats() const {
  Stats stats = counts_;
  stats.blocks = static_cast<std::uint32_t>(by_block_.size());
  stats.referenced_blocks = referenced_;
  return stats;
}

std::span<const std::int32_t> PrefixIndex::tokens_of(std::uint32_t node) const {
  return std::span(tokens_).subspan(std::size_t{node} * options_.block_tokens, options_.block_tokens);
}

std::uint64_t PrefixIndex::hash_of(ModelId model, std::uint32_t parent,
                                   std::span<const std::int32_t> tokens) const {
  std::uint64_t hash = mix(options_.seed + 0x9e3779b97f4a7c15 + (std::uint64_t{model} << 32 | parent));
  for (const std::int32_t token : tokens) {
    hash = mix(hash + 0x9e3779b97f4a7c15 + static_cast<std::uint32_t>(token));
  }
  return hash;
}

std::uint32_t PrefixIndex::find(ModelId model, std::uint32_t parent,
                                std::span<const std::int32_t> tokens) const {
  const auto [first, last] = by_hash_.equal_range(hash_of(model, parent, tokens));
  for (auto at = first; at != last; ++at) {
    const Node& node = nodes_[at->second];
    if (node.model == model && node.parent == parent && std::ranges::equal(tokens_of(at->second), tokens)) {
      return at->second;
    }
  }
  return kNone;
}

std::uint32_t PrefixIndex::add(ModelId model, std::uint32_t parent, std::span<const std::int32_t> tokens,
                               BlockId block) {
  std::uint32_t index = static_cast<std::uint32_t>(nodes_.size());
  if (free_.empty()) {
    nodes_.emplace_back();
    tokens_.resize(tokens_.size() + options_.block_tokens);
  } else {
    index = free_.back();
    free_.pop_back();
  }
  nodes_[index] = {.parent = parent, .model = model, .block = block, .hash = hash_of(model, parent, tokens)};
  std::ranges::copy(tokens, tokens_.begin() + static_cast<std::ptrdiff_t>(index) * options_.block_tokens);
  by_hash_.emplace(nodes_[index].hash, index);
  by_block_.emplace(block, index);
  ++models_[model].unused;
  if (parent != kNone) {
    unlist(parent);
    ++nodes_[parent].children;
  }
  return index;
}

// Nothing refers to the node any more but its hash and its block.
void PrefixIndex::remove(std::uint32_t index) {
  if (!nodes_[index].forgotten) unhash(index);
  by_block_.erase(nodes_[index].block);
  nodes_[index] = {};
  free_.push_back(index);
}

void PrefixIndex::unhash(std::uint32_t index) {
  const auto [first, last] = by_hash_.equal_range(nodes_[index].hash);
  by_hash_.erase(std::find_if(first, last, [index](const auto& entry) { return entry.second == index; }));
}

void PrefixIndex::reference(std::uint32_t index) {
  Node& node = nodes_[index];
  unlist(index);
  const bool was = in_use(node);
  if (++node.references == 1) ++referenced_;
  if (!was) use_begins(index);
}

void PrefixIndex::touch(std::uint32_t index) {
  unlist(index);
  nodes_[index].last_used = clock_;
  list(index);
}

void PrefixIndex::unlist(std::uint32_t index) {
  const Node& node = nodes_[index];
  if (node.references == 0 && node.children == 0) models_[node.model].leaves.erase({node.last_used, index});
}

void PrefixIndex::list(std::uint32_t index) {
  const Node& node = nodes_[index];
  if (node.references == 0 && node.children == 0) models_[node.model].leaves.insert({node.last_used, index});
}

void PrefixIndex::use_begins(std::uint32_t index) {
  Model& model = models_[nodes_[index].model];
  while (true) {
    --model.unused;
    index = nodes_[index].parent;
    if (index == kNone) return;
    const bool was = in_use(nodes_[index]);
    ++nodes_[index].used_below;
    if (was) return;
  }
}

void PrefixIndex::use_ends(std::uint32_t index) {
  Model& model = models_[nodes_[index].model];
  while (true) {
    ++model.unused;
    index = nodes_[index].parent;
    if (index == kNone) return;
    --nodes_[index].used_below;
    if (in_use(nodes_[index])) return;
  }
}

}  // namespace switchyard::kv
