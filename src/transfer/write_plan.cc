#include "transfer/write_plan.h"

#include <algorithm>

namespace switchyard::transfer {
namespace {

// offset + index * stride + bytes <= size, without overflow.
bool fits(std::uint64_t offset, std::uint64_t index, std::uint64_t stride, std::uint64_t bytes,
          std::uint64_t size) {
  std::uint64_t at = 0;
  return !__builtin_mul_overflow(index, stride, &at) && !__builtin_add_overflow(at, offset, &at) &&
         !__builtin_add_overflow(at, bytes, &at) && at <= size;
}

Status check_side(const char* side, std::uint64_t offset, std::uint64_t stride,
                  const std::vector<std::uint32_t>& pages, std::uint64_t page_bytes, std::uint64_t size) {
  // The largest index reaches furthest; all others fit where it does.
  const std::uint32_t furthest = *std::max_element(pages.begin(), pages.end());
  if (!fits(offset, furthest, stride, page_bytes, size)) {
    return fail(ErrorCode::out_of_range,
                "write_pages: page {} at offset {} + {} * {} runs over the {} region of {} bytes", furthest,
                offset, furthest, stride, side, size);
  }
  return {};
}

}  // namespace

Result<WritePlan> WritePlan::of(const Write& write) {
  if (!fits(write.source_offset, 0, 0, write.bytes, write.source.bytes())) {
    return fail(ErrorCode::out_of_range, "write: {} bytes at {} run over the source region of {} bytes",
                write.bytes, write.source_offset, write.source.bytes());
  }
  if (!fits(write.target_offset, 0, 0, write.bytes, write.target.bytes)) {
    return fail(ErrorCode::out_of_range, "write: {} bytes at {} run over the target region of {} bytes",
                write.bytes, write.target_offset, write.target.bytes);
  }
  WritePlan plan;
  plan.source_offset_ = write.source_offset;
  plan.target_offset_ = write.target_offset;
  plan.page_bytes_ = write.bytes;
  plan.pages_ = write.bytes == 0 ? 0 : 1;
  return plan;
}

Result<WritePlan> WritePlan::of(PagedWrite& write) {
  if (write.source_pages.size() != write.target_pages.size()) {
    return fail(ErrorCode::invalid, "write_pages: {} source pages but {} target pages",
                write.source_pages.size(), write.target_pages.size());
  }
  if (write.source_pages.size() > PagedWrite::kMaxPages) {
    return fail(ErrorCode::invalid, "write_pages: {} pages are more than {}; split the transfer",
                write.source_pages.size(), PagedWrite::kMaxPages);
  }
  WritePlan plan;
  if (write.source_pages.empty() || write.page_bytes == 0) return plan;
  if (auto ok = check_side("source", write.source_offset, write.source_stride, write.source_pages,
                           write.page_bytes, write.source.bytes());
      !ok) {
    return pass(ok.error());
  }
  if (auto ok = check_side("target", write.target_offset, write.target_stride, write.target_pages,
                           write.page_bytes, write.target.bytes);
      !ok) {
    return pass(ok.error());
  }
  plan.pages_ = write.source_pages.size();
  plan.source_pages_ = std::move(write.source_pages);
  plan.target_pages_ = std::move(write.target_pages);
  plan.source_offset_ = write.source_offset;
  plan.source_stride_ = write.source_stride;
  plan.target_offset_ = write.target_offset;
  plan.target_stride_ = write.target_stride;
  plan.page_bytes_ = write.page_bytes;
  return plan;
}

Run WritePlan::peek(std::uint64_t limit) const {
  Run run{source_of(next_page_) + done_in_page_, target_of(next_page_) + done_in_page_,
          page_bytes_ - done_in_page_};
  for (std::uint64_t page = next_page_ + 1; page < pages_ && run.bytes < limit; ++page) {
    if (source_of(page) != run.source_offset + run.bytes || target_of(page) != run.target_offset + run.bytes)
      break;
    run.bytes += page_bytes_;
  }
  run.bytes = std::min(run.bytes, limit);
  return run;
}

void WritePlan::take(const Run& run) {
  const std::uint64_t done = done_in_page_ + run.bytes;
  next_page_ += done / page_bytes_;
  done_in_page_ = done % page_bytes_;
}

}  // namespace switchyard::transfer
