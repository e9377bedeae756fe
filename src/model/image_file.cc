#include "model/image_file.h"

#include <algorithm>
#include <future>

#include "base/sha256.h"
#include "model/image_format.h"
#include "model/mapped_file.h"

namespace switchyard::model {
namespace {

constexpr std::size_t kPiece = std::size_t{8} << 20;  // that is read and hashed at a time

class LoadedImage final : public ImageFile {
 public:
  LoadedImage() = default;
  explicit LoadedImage(MappedFile mapping) : mapping_(std::move(mapping)) {}
  explicit LoadedImage(std::shared_ptr<const void> keep) : keep_(std::move(keep)) {}

  Status load(std::span<const std::byte> file) {
    const auto header = parse_image_header(file);
    if (!header) return pass(header.error());
    const auto index_bytes = file.last(header->index_bytes);
    Sha256 hash;
    hash.update(index_bytes);
    if (hash.finish() != header->index_hash) return fail(ErrorCode::corrupt, "the image's index is damaged");
    auto index = parse_image_index(index_bytes, header->data_bytes);
    if (!index) return pass(index.error());
    contents_ = std::make_shared<ImageContents>(std::move(index->description), std::move(index->entries));
    data_ = file.subspan(kImageAlignment, header->data_bytes);
    data_hash_ = header->data_hash;
    file_ = file;
    return {};
  }

  Status read(std::uint64_t offset, std::span<std::byte> out) const override {
    if (!mapping_.bytes().empty()) return mapping_.read(offset, out);
    if (offset > file_.size() || out.size() > file_.size() - offset) {
      return fail(ErrorCode::out_of_range, "{} bytes at {} are outside of an image of {}", out.size(), offset,
                  file_.size());
    }
    std::copy_n(file_.begin() + static_cast<std::ptrdiff_t>(offset), out.size(), out.begin());
    return {};
  }

  const MappedFile& mapping() const { return mapping_; }

 private:
  MappedFile mapping_;
  std::shared_ptr<const void> keep_;
};

}  // namespace

ImageContents::ImageContents(ImageDescription description, std::vector<ImageEntry> entries)
    : description_(std::move(description)), entries_(std::move(entries)) {
  for (std::size_t i = 0; i < entries_.size(); ++i) by_name_.emplace(entries_[i].name, i);
}

const ImageEntry* ImageContents::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &entries_[found->second];
}

Result<std::shared_ptr<const ImageFile>> ImageFile::open(const std::filesystem::path& path) {
  auto mapping = MappedFile::open(path);
  if (!mapping) return pass(mapping.error());
  auto image = std::make_shared<LoadedImage>(std::move(*mapping));
  if (auto status = image->load(image->mapping().bytes()); !status)
    return fail_at(path.string(), status.error());
  return image;
}

Result<std::shared_ptr<const ImageFile>> ImageFile::parse(std::span<const std::byte> bytes,
                                                          std::shared_ptr<const void> keep) {
  auto image = std::make_shared<LoadedImage>(std::move(keep));
  if (auto status = image->load(bytes); !status) return pass(status.error());
  return image;
}

Status ImageFile::copy(std::span<std::byte> out, const std::function<bool(std::uint64_t)>& go_on) const {
  if (out.size() < file_.size()) {
    return fail(ErrorCode::out_of_range, "an image of {} bytes does not fit {}", file_.size(), out.size());
  }
  const auto data = out.subspan(kImageAlignment, data_.size());
  Sha256 hash;
  std::future<void> hashing;  // of the piece before; where there is no thread for it, it is done here
  for (std::size_t done = 0; done < file_.size();) {
    const std::size_t count = std::min(kPiece, file_.size() - done);
    if (auto status = read(done, out.subspan(done, count)); !status) return status;
    if (hashing.valid()) hashing.get();
    // What of the data lies in this piece.
    const std::size_t from = std::clamp(done, kImageAlignment, kImageAlignment + data.size());
    const std::size_t to = std::clamp(done + count, from, kImageAlignment + data.size());
    const auto part = out.subspan(from, to - from);
    hashing = std::async([&hash, part] { hash.update(part); });
    done += count;
    if (!go_on(count)) return fail(ErrorCode::cancelled, "the copying of an image was called off");
  }
  if (hashing.valid()) hashing.get();
  return compare(hash);
}

Status ImageFile::verify(const std::function<void(std::uint64_t, std::uint64_t)>& progress) const {
  Sha256 hash;
  for (std::size_t done = 0; done < data_.size();) {
    const std::size_t count = std::min(kPiece, data_.size() - done);
    hash.update(data_.subspan(done, count));
    done += count;
    if (progress) progress(done, data_.size());
  }
  return compare(hash);
}

Status ImageFile::compare(Sha256& hash) const {
  if (hash.finish() == data_hash_) return {};
  return fail(ErrorCode::corrupt, "the image's data is damaged: its SHA-256 is not the one that was written");
}

}  // namespace switchyard::model
