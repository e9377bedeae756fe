// Finds the KV blocks that hold the beginning of a prompt, so that it need not be computed again.
//
// A tree: a node is a full block of tokens that follows the tokens of its parent, and has the block that
// holds their keys and values. Children are found by hash, and tokens are compared: what is found is what was
// asked for, whatever anybody sends. Blocks are counted by the requests that use them. Those that nobody uses
// stay until they are evicted, the least recently used first, and no block before those that continue it.
//
// A pure data structure: it touches no memory of blocks. Owned by whoever owns the blocks; one thread at a
// time. Costs a look-up per block, and a logarithm where a block begins or ceases to be evictable.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "memory/block_pool.h"

namespace switchyard::kv {

class PrefixIndex {
 public:
  // Of one model's weights: other weights, another number.
  using ModelId = std::uint32_t;

  struct Options {
    std::uint32_t block_tokens = 16;
    std::uint32_t max_blocks = 1 << 20;  // that it knows; no more are taken in then
    std::uint64_t seed = 0;              // of the hash: random where prompts come from strangers
  };
  struct Evicted {
    ModelId model = 0;
    BlockId block = 0;
    friend bool operator==(const Evicted&, const Evicted&) = default;
  };
  struct Stats {
    std::uint64_t lookups = 0;
    std::uint64_t hits = 0;  // that found a block at least
    std::uint64_t tokens_asked = 0;
    std::uint64_t tokens_saved = 0;
    std::uint64_t evictions = 0;
    std::uint32_t blocks = 0;             // known
    std::uint32_t referenced_blocks = 0;  // of them, in use
  };

  explicit PrefixIndex(const Options& options);

  // Appends the blocks of the longest known run of full blocks at the beginning of `prompt`, each with a
  // reference for the caller; returns their number. Never the whole prompt: its last token has to be computed
  // for its logits.
  std::uint32_t match(ModelId model, std::span<const std::int32_t> prompt, std::vector<BlockId>& blocks);

  // `blocks` of a request hold the keys and values of `tokens`, from the first on, some of them perhaps from
  // match(). Takes in the full ones that are not known yet; the request's hold on them is their first
  // reference. A block whose tokens are known with another block stays the request's own. May be called again
  // as a request grows.
  void insert(ModelId model, std::span<const std::int32_t> tokens, std::span<const BlockId> blocks);

  // A request needs its blocks no more. Appends to `freed` those that nobody can use again: the caller gives
  // them back to their pool. The others stay, and are the index's until they are evicted.
  void release(std::span<const BlockId> blocks, std::vector<BlockId>& freed);

  // Appends up to `count` blocks that nobody uses, of all models or of one; fewer where there are fewer. They
  // are the caller's to give back.
  std::uint32_t evict(std::uint32_t count, std::vector<Evicted>& evicted);
  std::uint32_t evict(ModelId model, std::uint32_t count, std::vector<Evicted>& evicted);
  // Forgets a model. Blocks in use come back with their last release(); requests that use them insert nothing
  // under this number any more. Costs a pass over all blocks.
  void evict_all(ModelId model, std::vector<Evicted>& evicted);

  // A block's bytes have moved (BlockPool::compact). False: it is not known here.
  bool moved(BlockId from, BlockId to);

  bool knows(BlockId block) const { return by_block_.contains(block); }
  // That evict() could give back, if asked for all of a model.
  std::uint32_t unused(ModelId model) const;
  Stats stats() const;

 private:
  static constexpr std::uint32_t kNone = UINT32_MAX;

  struct Node {
    std::uint32_t parent = kNone;
    ModelId model = 0;
    BlockId block = 0;
    std::uint32_t references = 0;
    std::uint32_t children = 0;
    std::uint32_t used_below = 0;  // children that are in use, or have such children
    bool forgotten = false;        // no longer found
    std::uint64_t last_used = 0;
    std::uint64_t hash = 0;
  };
  // Evictable nodes of a model: nobody uses them and nothing continues them.
  struct Model {
    std::set<std::pair<std::uint64_t, std::uint32_t>> leaves;  // by last_used
    std::uint32_t unused = 0;                                  // nodes without use in them or below
  };

  std::span<const std::int32_t> tokens_of(std::uint32_t node) const;
  std::uint64_t hash_of(ModelId model, std::uint32_t parent, std::span<const std::int32_t> tokens) const;
  std::uint32_t find(ModelId model, std::uint32_t parent, std::span<const std::int32_t> tokens) const;
  std::uint32_t add(ModelId model, std::uint32_t parent, std::span<const std::int32_t> tokens, BlockId block);
  void remove(std::uint32_t index);
  void unhash(std::uint32_t index);
  void reference(std::uint32_t index);
  void touch(std::uint32_t index);
  // Takes a node off the evictable ones, or puts it there if it is one.
  void unlist(std::uint32_t index);
  void list(std::uint32_t index);
  static bool in_use(const Node& node) { return node.references != 0 || node.used_below != 0; }
  // in_use() of a node has changed: tells those above.
  void use_begins(std::uint32_t index);
  void use_ends(std::uint32_t index);
  void evict_first(ModelId model, std::vector<Evicted>& evicted);

  const Options options_;
  std::vector<Node> nodes_;
  std::vector<std::int32_t> tokens_;  // of node i at i * block_tokens
  std::vector<std::uint32_t> free_;
  std::unordered_multimap<std::uint64_t, std::uint32_t> by_hash_;
  std::unordered_map<BlockId, std::uint32_t> by_block_;
  std::unordered_map<ModelId, Model> models_;
  std::uint64_t clock_ = 0;
  std::uint32_t referenced_ = 0;
  Stats counts_;
};

}  // namespace switchyard::kv
