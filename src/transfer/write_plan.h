// What a write still has to post: a sequence of runs, adjacent pages joined, long runs cut.
//
// Made where the transfer is submitted, which checks every page against both regions; read by the worker.
// Reading is O(1) per page, without allocation.
#pragma once

#include <cstdint>
#include <vector>

#include "switchyard/transfer.h"

namespace switchyard::transfer {

struct Run {
  std::uint64_t source_offset = 0;
  std::uint64_t target_offset = 0;
  std::uint64_t bytes = 0;
};

class WritePlan {
 public:
  WritePlan() = default;
  // Errors: invalid, out_of_range.
  static Result<WritePlan> of(const Write& write);
  static Result<WritePlan> of(PagedWrite& write);  // takes the page lists

  bool finished() const { return next_page_ == pages_; }
  std::uint64_t bytes() const { return pages_ * page_bytes_; }

  // The next run, of at most `limit` bytes; not when finished. take() goes on to the one after it.
  Run peek(std::uint64_t limit) const;
  void take(const Run& run);

  // For going back when a fabric took fewer runs than it was offered.
  struct Position {
    std::uint64_t page = 0;
    std::uint64_t done_in_page = 0;
  };
  Position position() const { return {next_page_, done_in_page_}; }
  void seek(Position position) {
    next_page_ = position.page;
    done_in_page_ = position.done_in_page;
  }

 private:
  std::uint64_t source_of(std::uint64_t page) const {
    return source_offset_ + (source_pages_.empty() ? 0 : source_pages_[page] * source_stride_);
  }
  std::uint64_t target_of(std::uint64_t page) const {
    return target_offset_ + (target_pages_.empty() ? 0 : target_pages_[page] * target_stride_);
  }

  std::vector<std::uint32_t> source_pages_, target_pages_;  // empty: one page, at the offsets
  std::uint64_t source_offset_ = 0, source_stride_ = 0;
  std::uint64_t target_offset_ = 0, target_stride_ = 0;
  std::uint64_t page_bytes_ = 0;
  std::uint64_t pages_ = 0;
  std::uint64_t next_page_ = 0;
  std::uint64_t done_in_page_ = 0;
};

}  // namespace switchyard::transfer
