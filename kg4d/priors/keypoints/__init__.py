"""Where keypoints come from: marked by a person, found in people, followed through the video and round the views."""
